/* Writes down how to take back what a process has written to the files of a folder and not synced.

   For LD_PRELOAD. Before a write or a truncation of a file below POWER_CUT_ROOT, what is there goes to the file
   POWER_CUT_JOURNAL/<inode>; before a name is made, changed or removed, the way back goes to POWER_CUT_JOURNAL/names.
   A sync of a file empties its journal, a sync of a directory that of the names: from then on a power cut could not take
   it back. The disk itself is not synced, since the cut is only played. power_cut.py reads the journals and goes back.

   What is written by mmap is not seen (SQLite's -shm, which no start trusts). All names are in one directory. */

#include "../shim.h"

#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/uio.h>

typedef struct {
    uint64_t offset, old_size, length;
} Record;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned kept;

static int below_root(const char *path)
{
    const char *root = getenv("POWER_CUT_ROOT");
    size_t length = root ? strlen(root) : 0;
    return length && !strncmp(path, root, length) && (path[length] == '/' || !path[length]);
}

static void must(int holds)
{
    if (!holds)
        abort();
}

static int open_journal(const char *name, int flags)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", getenv("POWER_CUT_JOURNAL"), name);
    int fd = NEXT(open)(path, O_CREAT | O_WRONLY | O_CLOEXEC | flags, 0600);
    must(fd >= 0);
    return fd;
}

static int journal_of(const struct stat *file, int flags)
{
    char name[32];
    snprintf(name, sizeof name, "%lu", (unsigned long)file->st_ino);
    return open_journal(name, flags);
}

/* A record is one call, so that a kill leaves it whole, or last and short. */
static void remember(int fd, uint64_t offset, uint64_t length)
{
    struct stat file;
    must(!fstat(fd, &file));
    uint64_t size = (uint64_t)file.st_size;
    Record record = {offset, size, offset < size ? (length < size - offset ? length : size - offset) : 0};
    char *old = malloc(record.length + 1);
    must(old && pread(fd, old, record.length, (off_t)offset) == (ssize_t)record.length);
    struct iovec parts[2] = {{&record, sizeof record}, {old, record.length}};
    int journal = journal_of(&file, O_APPEND);
    must(writev(journal, parts, 2) == (ssize_t)(sizeof record + record.length));
    NEXT(close)(journal);
    free(old);
}

static void remember_name(const char *what, const char *path, const char *other, const char *keep)
{
    char line[3 * PATH_MAX + 32];
    int length = snprintf(line, sizeof line, "%s\t%s\t%s\t%s\n", what, path, other, keep);
    int journal = open_journal("names", O_APPEND);
    must(NEXT(write)(journal, line, (size_t)length) == length);
    NEXT(close)(journal);
}

/* Keep what a name stands for by another name; empty when it stands for nothing. */
static void keep_file(const char *path, char *kept_path)
{
    snprintf(kept_path, PATH_MAX, "%s/kept-%d-%u", getenv("POWER_CUT_JOURNAL"), (int)getpid(), kept++);
    if (NEXT(link)(path, kept_path))
        kept_path[0] = 0;
}

static int open_tracked(int (*next)(const char *, int, ...), const char *path, int flags, mode_t mode)
{
    if (!below_root(path))
        return next(path, flags, mode);
    /* What is to be written over has to be read first. */
    if ((flags & O_ACCMODE) == O_WRONLY)
        flags = (flags & ~O_ACCMODE) | O_RDWR;
    pthread_mutex_lock(&lock);
    if ((flags & O_CREAT) && access(path, F_OK))
        remember_name("made", path, "", "");
    int fd = next(path, flags & ~O_TRUNC, mode);
    if (fd >= 0 && (flags & O_TRUNC)) {
        remember(fd, 0, UINT64_MAX);
        must(!NEXT(ftruncate)(fd, 0));
    }
    if (fd >= 0 && fd < MAX_FD)
        tracked[fd] = 1;
    pthread_mutex_unlock(&lock);
    return fd;
}

int open(const char *path, int flags, ...)
{
    MODE_OF(flags, mode)
    return open_tracked(NEXT(open), path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    MODE_OF(flags, mode)
    return open_tracked(NEXT(open64), path, flags, mode);
}

int close(int fd)
{
    if (tracks(fd))
        tracked[fd] = 0;
    return NEXT(close)(fd);
}

#define REMEMBERING(fd, offset, length, call)                                                                          \
    if (!tracks(fd))                                                                                                   \
        return call;                                                                                                   \
    pthread_mutex_lock(&lock);                                                                                         \
    remember(fd, (uint64_t)(offset), (uint64_t)(length));                                                              \
    typeof(call) result = call;                                                                                        \
    pthread_mutex_unlock(&lock);                                                                                       \
    return result;

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset)
{
    REMEMBERING(fd, offset, length, NEXT(pwrite)(fd, data, length, offset))
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset)
{
    REMEMBERING(fd, offset, length, NEXT(pwrite64)(fd, data, length, offset))
}

ssize_t write(int fd, const void *data, size_t length)
{
    REMEMBERING(fd, lseek(fd, 0, SEEK_CUR), length, NEXT(write)(fd, data, length))
}

int ftruncate(int fd, off_t size)
{
    REMEMBERING(fd, size, UINT64_MAX, NEXT(ftruncate)(fd, size))
}

int ftruncate64(int fd, off64_t size)
{
    REMEMBERING(fd, size, UINT64_MAX, NEXT(ftruncate64)(fd, size))
}

static int forget(int fd)
{
    struct stat file;
    must(!fstat(fd, &file));
    pthread_mutex_lock(&lock);
    NEXT(close)(S_ISDIR(file.st_mode) ? open_journal("names", O_TRUNC) : journal_of(&file, O_TRUNC));
    pthread_mutex_unlock(&lock);
    return 0;
}

int fsync(int fd)
{
    return tracks(fd) ? forget(fd) : NEXT(fsync)(fd);
}

int fdatasync(int fd)
{
    return tracks(fd) ? forget(fd) : NEXT(fdatasync)(fd);
}

int unlink(const char *path)
{
    char keep[PATH_MAX];
    if (!below_root(path))
        return NEXT(unlink)(path);
    pthread_mutex_lock(&lock);
    keep_file(path, keep);
    if (keep[0])
        remember_name("removed", path, "", keep);
    int result = NEXT(unlink)(path);
    pthread_mutex_unlock(&lock);
    return result;
}

int rename(const char *from, const char *to)
{
    char keep[PATH_MAX];
    if (!below_root(to))
        return NEXT(rename)(from, to);
    pthread_mutex_lock(&lock);
    keep_file(to, keep);
    remember_name("renamed", from, to, keep);
    int result = NEXT(rename)(from, to);
    pthread_mutex_unlock(&lock);
    return result;
}

int link(const char *from, const char *to)
{
    if (!below_root(to))
        return NEXT(link)(from, to);
    pthread_mutex_lock(&lock);
    if (access(to, F_OK))
        remember_name("made", to, "", "");
    int result = NEXT(link)(from, to);
    pthread_mutex_unlock(&lock);
    return result;
}
