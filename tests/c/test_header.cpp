// The header is C++17, and what it declares links from C++.
#include "layerguard.h"

int main()
{
    char const *name = nullptr;
    return lg_level(&name) == LG_OK && lg_lcf_score(nullptr) == LG_ERR_NULL ? 0 : 1;
}
