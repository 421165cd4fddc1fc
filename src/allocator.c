/* How glibc's allocator is to work for the sidecar; other C libraries give freed memory back by themselves.
 *
 * A collection fills and frees megabytes in a moment, on whichever thread is free. Left to itself, glibc keeps an arena for
 * each thread, raises the size from which a block is mapped by itself as soon as a large one has been freed, and so holds
 * on to several times what is in use. What the user says in the environment counts before this. */
#include <stdlib.h>

#ifdef __GLIBC__
#include <malloc.h>

static void settle(const char *environment, int parameter, int value)
{
    if (getenv(environment) == NULL)
        mallopt(parameter, value);
}

/* Runs before main, while there is one thread. */
__attribute__((constructor)) static void leakslope_settle_allocator(void)
{
    settle("MALLOC_ARENA_MAX", M_ARENA_MAX, 1);
    settle("MALLOC_MMAP_THRESHOLD_", M_MMAP_THRESHOLD, 128 * 1024);
    settle("MALLOC_TRIM_THRESHOLD_", M_TRIM_THRESHOLD, 128 * 1024);
}
#endif
