// The header is C++17, and what it declares links from C++.
#include "layerguard.h"

int main()
{
    char const *name = nullptr;
    lg_guard *guard = nullptr;
    lg_guard_info info{};
    info.struct_size = sizeof info;
    return lg_level(&name) == LG_OK && lg_lcf_score(nullptr) == LG_ERR_NULL
                   && lg_open(nullptr, nullptr, &guard) == LG_ERR_NULL
                   && lg_guard_describe(guard, &info) == LG_ERR_NULL
               ? 0
               : 1;
}
