# What `cmake --install` puts where, and what finds it there: pkg-config and find_package(LayerGuard).
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

if(SKBUILD) # a wheel holds no links: one file, found where it lies
  set(place layerguard/runtime/c/)
  set(CMAKE_INSTALL_LIBDIR lib)
else()
  set(place "")
  set_target_properties(layerguard PROPERTIES VERSION ${PROJECT_VERSION}
                                              SOVERSION ${PROJECT_VERSION_MAJOR})
endif()
set(headers ${place}${CMAKE_INSTALL_INCLUDEDIR})
set(libraries ${place}${CMAKE_INSTALL_LIBDIR})
set(package ${libraries}/cmake/LayerGuard)

install(FILES csrc/layerguard.h csrc/layerguard_api.h DESTINATION ${headers})
# Two exports: a program that links the shared library needs nothing of what the static one needs.
install(TARGETS layerguard EXPORT LayerGuardTargets DESTINATION ${libraries}
        INCLUDES DESTINATION ${headers})
install(TARGETS layerguard_static EXPORT LayerGuardStaticTargets DESTINATION ${libraries}
        INCLUDES DESTINATION ${headers})
install(EXPORT LayerGuardTargets NAMESPACE LayerGuard:: DESTINATION ${package})
install(EXPORT LayerGuardStaticTargets NAMESPACE LayerGuard:: DESTINATION ${package})

set(built ${CMAKE_CURRENT_BINARY_DIR}/package)
configure_package_config_file(cmake/LayerGuardConfig.cmake.in ${built}/LayerGuardConfig.cmake
                              INSTALL_DESTINATION ${package})
write_basic_package_version_file(${built}/LayerGuardConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${built}/LayerGuardConfig.cmake ${built}/LayerGuardConfigVersion.cmake
        DESTINATION ${package})

file(RELATIVE_PATH up /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
configure_file(cmake/layerguard.pc.in ${built}/layerguard.pc @ONLY)
install(FILES ${built}/layerguard.pc DESTINATION ${libraries}/pkgconfig)
