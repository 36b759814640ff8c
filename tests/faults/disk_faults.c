/* Lets calls on a database's files fail, as a disk that is full or broken does, or the making of threads.

   For LD_PRELOAD. The files are those whose names begin with DISK_FAULTS_FILE, a path. Which calls fail, and how, is in
   the file DISK_FAULTS_CONTROL, a `Control` that this process and its tester share: disk_faults.py writes it. A write
   that fails has written its first half, as one may. What is read by mmap (SQLite's -shm) is not seen. */

#include "../shim.h"

#include <errno.h>
#include <sys/mman.h>

enum { WRITE = 1, SYNC = 2, READ = 4, THREAD = 8 };

/* Of the calls of these kinds, counted from 1, those from `first` fail with `error`, `count` of them. */
typedef struct {
    uint32_t kinds, error;
    uint64_t first, count, seen, failed;
} Control;

static Control *control;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("DISK_FAULTS_CONTROL");
    int fd = path ? NEXT(open)(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        abort();
    control = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (control == MAP_FAILED)
        abort();
    NEXT(close)(fd);
}

static int is_next(uint32_t kind)
{
    if (!(control->kinds & kind))
        return 0;
    uint64_t number = __atomic_add_fetch(&control->seen, 1, __ATOMIC_SEQ_CST);
    if (number < control->first || number - control->first >= control->count)
        return 0;
    __atomic_add_fetch(&control->failed, 1, __ATOMIC_SEQ_CST);
    return 1;
}

static int fails(int fd, uint32_t kind)
{
    return tracks(fd) && is_next(kind);
}

static int fail(void)
{
    errno = (int)control->error;
    return -1;
}

static int track(int fd, const char *path)
{
    const char *file = getenv("DISK_FAULTS_FILE");
    if (fd >= 0 && fd < MAX_FD)
        tracked[fd] = !strncmp(path, file, strlen(file));
    return fd;
}

int open(const char *path, int flags, ...)
{
    MODE_OF(flags, mode)
    return track(NEXT(open)(path, flags, mode), path);
}

int open64(const char *path, int flags, ...)
{
    MODE_OF(flags, mode)
    return track(NEXT(open64)(path, flags, mode), path);
}

int close(int fd)
{
    if (fd >= 0 && fd < MAX_FD)
        tracked[fd] = 0;
    return NEXT(close)(fd);
}

#define FAILING(fd, kind, before, call)                                                                                \
    if (fails(fd, kind)) {                                                                                             \
        before;                                                                                                        \
        return fail();                                                                                                 \
    }                                                                                                                  \
    return call;

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset)
{
    FAILING(fd, WRITE, NEXT(pwrite)(fd, data, length / 2, offset), NEXT(pwrite)(fd, data, length, offset))
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset)
{
    FAILING(fd, WRITE, NEXT(pwrite64)(fd, data, length / 2, offset), NEXT(pwrite64)(fd, data, length, offset))
}

ssize_t write(int fd, const void *data, size_t length)
{
    FAILING(fd, WRITE, NEXT(write)(fd, data, length / 2), NEXT(write)(fd, data, length))
}

int ftruncate(int fd, off_t size)
{
    FAILING(fd, WRITE, (void)0, NEXT(ftruncate)(fd, size))
}

int ftruncate64(int fd, off64_t size)
{
    FAILING(fd, WRITE, (void)0, NEXT(ftruncate64)(fd, size))
}

int fallocate(int fd, int mode, off_t offset, off_t length)
{
    FAILING(fd, WRITE, (void)0, NEXT(fallocate)(fd, mode, offset, length))
}

int fallocate64(int fd, int mode, off64_t offset, off64_t length)
{
    FAILING(fd, WRITE, (void)0, NEXT(fallocate64)(fd, mode, offset, length))
}

int posix_fallocate(int fd, off_t offset, off_t length)
{
    return fails(fd, WRITE) ? (int)control->error : NEXT(posix_fallocate)(fd, offset, length);
}

int fsync(int fd)
{
    FAILING(fd, SYNC, (void)0, NEXT(fsync)(fd))
}

int fdatasync(int fd)
{
    FAILING(fd, SYNC, (void)0, NEXT(fdatasync)(fd))
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument)
{
    return is_next(THREAD) ? (int)control->error : NEXT(pthread_create)(thread, attributes, run, argument);
}

ssize_t pread(int fd, void *data, size_t length, off_t offset)
{
    FAILING(fd, READ, (void)0, NEXT(pread)(fd, data, length, offset))
}

ssize_t pread64(int fd, void *data, size_t length, off64_t offset)
{
    FAILING(fd, READ, (void)0, NEXT(pread64)(fd, data, length, offset))
}

ssize_t read(int fd, void *data, size_t length)
{
    FAILING(fd, READ, (void)0, NEXT(read)(fd, data, length))
}
