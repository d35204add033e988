#pragma once

// XXH3 (https://xxhash.com) by the widest vectors that this processor has: under the names of xxhash.h, the functions
// of the library that choose when they are called. Its plain ones, as Debian builds them, take 128 bits at most.

#include <xxhash.h>
#ifdef __x86_64__
#include <xxh_x86dispatch.h>
#endif
