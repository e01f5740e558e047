"""Scripts that CMake runs while it builds the package; the wheel does not hold them."""
