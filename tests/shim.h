/* What the shims for LD_PRELOAD that stand before the calls on files share. Included first. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define MAX_FD 65536

/* The function that the shim's own of this name stands before. */
#define NEXT(name) ((typeof(&name))dlsym(RTLD_NEXT, #name))

/* Declares `mode`: what an `open` has after its flags, if they ask for it. */
#define MODE_OF(flags, mode)                                                                                           \
    mode_t mode = 0;                                                                                                   \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                                             \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode = va_arg(rest, mode_t);                                                                                   \
        va_end(rest);                                                                                                  \
    }

/* By descriptor, whether the shim has an eye on it. */
static char tracked[MAX_FD];

static int tracks(int fd)
{
    return fd >= 0 && fd < MAX_FD && tracked[fd];
}
