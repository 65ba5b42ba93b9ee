/* Counts what a process asks of the file system below some folders, and ends it or fails it at a chosen point.

   Loaded before the C library (LD_PRELOAD). The state is a file mapped into memory that is shared with the forks of a
   process, so that whoever maps it, too, arms a point and reads what happened. CRASH_STATE: its path. Layout: see
   struct state, which tests/crash/server.py reads. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define NAMED 8192
#define NAME 192
enum { OFF = 0, COUNT = 1, KILL = 2, TEAR = 3, FULL = 4 };

struct state {
    long mode;       /* what happens at the point */
    long point;      /* the number of the event, from 1 */
    long count;      /* events so far */
    char root[4096]; /* only what lies below counts */
    char names[NAMED][NAME];
};

static struct state *state;

__attribute__((constructor)) static void map_state(void) {
    const char *path = getenv("CRASH_STATE");
    if (!path) return;
    int (*real_open)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
    int fd = real_open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *found = mmap(NULL, sizeof(struct state), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (found != MAP_FAILED) state = found;
}

static int is_below(const char *path) {
    size_t length = strlen(state->root);
    size_t whole = strlen(path);
    /* The index of a write-ahead log is memory that lies in a file: SQLite makes it anew after a crash. */
    if (whole > 4 && !strcmp(path + whole - 4, "-shm")) return 0;
    return length && !strncmp(path, state->root, length) && (path[length] == '/' || !path[length]);
}

/* Whether this event is the point, or comes after it. FULL: fails it. name: of the operation. Returns 0 or FULL. */
static int event(const char *name, const char *path, int needs_space) {
    long number = __atomic_add_fetch(&state->count, 1, __ATOMIC_SEQ_CST);
    if (number <= NAMED) snprintf(state->names[number - 1], NAME, "%s %s", name, path + strlen(state->root));
    if (number == state->point && state->mode == KILL) kill(getpid(), SIGKILL);
    if (number >= state->point && state->mode == FULL && needs_space) {
        errno = ENOSPC;
        return FULL;
    }
    return 0;
}

static int absolute(int folder, const char *path, char *found) {
    if (path[0] == '/') {
        snprintf(found, PATH_MAX, "%s", path);
        return 1;
    }
    char link[64];
    if (folder == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
    else snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t length = readlink(link, found, PATH_MAX / 2);
    if (length < 0) return 0;
    snprintf(found + length, PATH_MAX - length, "/%s", path);
    return 1;
}

static int watched(void) { return state && state->mode != OFF; }

static int on_path(const char *name, int folder, const char *path, int needs_space) {
    char found[PATH_MAX + 64];
    if (!watched() || !absolute(folder, path, found) || !is_below(found)) return 0;
    return event(name, found, needs_space);
}

static int on_handle(const char *name, int fd, char *found) {
    char link[64];
    if (!watched()) return -1;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, found, PATH_MAX);
    if (length < 0) return -1;
    found[length] = 0;
    return is_below(found) ? 1 : -1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* Writes: a torn one writes half of its bytes and dies, a full disk takes half of them once. */
#define WRITE(name, arguments, call, half)                                                        \
    {                                                                                             \
        char path[PATH_MAX + 1];                                                                  \
        if (on_handle(#name, fd, path) > 0) {                                                     \
            if (event("write", path, 1)) {                                                        \
                if (state->count == state->point && size > 1) {                                   \
                    size /= 2;                                                                    \
                    return half;                                                                  \
                }                                                                                 \
                return -1;                                                                        \
            }                                                                                     \
            if (state->mode == TEAR && state->count == state->point) {                            \
                size /= 2;                                                                        \
                if (half >= 0) kill(getpid(), SIGKILL);                                           \
            }                                                                                     \
        }                                                                                         \
        return call;                                                                              \
    }

ssize_t write(int fd, const void *data, size_t size)
    WRITE(write, , REAL(write)(fd, data, size), REAL(write)(fd, data, size))
ssize_t pwrite(int fd, const void *data, size_t size, off_t at)
    WRITE(pwrite, , REAL(pwrite)(fd, data, size, at), REAL(pwrite)(fd, data, size, at))
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at)
    WRITE(pwrite64, , REAL(pwrite64)(fd, data, size, at), REAL(pwrite64)(fd, data, size, at))

ssize_t writev(int fd, const struct iovec *parts, int n) {
    char path[PATH_MAX + 1];
    if (on_handle("writev", fd, path) > 0 && event("write", path, 1)) return -1;
    return REAL(writev)(fd, parts, n);
}

ssize_t sendfile(int fd, int from, off_t *at, size_t size) {
    char path[PATH_MAX + 1];
    if (on_handle("sendfile", fd, path) > 0 && event("write", path, 1)) return -1;
    return REAL(sendfile)(fd, from, at, size);
}
ssize_t sendfile64(int fd, int from, off64_t *at, size_t size) {
    char path[PATH_MAX + 1];
    if (on_handle("sendfile64", fd, path) > 0 && event("write", path, 1)) return -1;
    return REAL(sendfile64)(fd, from, at, size);
}
ssize_t copy_file_range(int from, off64_t *at, int fd, off64_t *to, size_t size, unsigned flags) {
    char path[PATH_MAX + 1];
    if (on_handle("copy_file_range", fd, path) > 0 && event("write", path, 1)) return -1;
    return REAL(copy_file_range)(from, at, fd, to, size, flags);
}

static int creates(int flags) { return (flags & (O_CREAT | O_TRUNC)) != 0; }

#define OPEN(name)                                                                                \
    int name(const char *path, int flags, ...) {                                                  \
        va_list rest;                                                                             \
        va_start(rest, flags);                                                                    \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                   \
        va_end(rest);                                                                             \
        if (creates(flags) && on_path("create", AT_FDCWD, path, 1)) return -1;                    \
        return REAL(name)(path, flags, mode);                                                     \
    }
#define OPENAT(name)                                                                              \
    int name(int folder, const char *path, int flags, ...) {                                      \
        va_list rest;                                                                             \
        va_start(rest, flags);                                                                    \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                   \
        va_end(rest);                                                                             \
        if (creates(flags) && on_path("create", folder, path, 1)) return -1;                      \
        return REAL(name)(folder, path, flags, mode);                                             \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

int rename(const char *old, const char *new) {
    return on_path("rename", AT_FDCWD, new, 0) ? -1 : REAL(rename)(old, new);
}
int renameat(int a, const char *old, int b, const char *new) {
    return on_path("rename", b, new, 0) ? -1 : REAL(renameat)(a, old, b, new);
}
int link(const char *old, const char *new) {
    return on_path("link", AT_FDCWD, new, 1) ? -1 : REAL(link)(old, new);
}
int linkat(int a, const char *old, int b, const char *new, int flags) {
    return on_path("link", b, new, 1) ? -1 : REAL(linkat)(a, old, b, new, flags);
}
int unlink(const char *path) { return on_path("unlink", AT_FDCWD, path, 0) ? -1 : REAL(unlink)(path); }
int unlinkat(int folder, const char *path, int flags) {
    return on_path("unlink", folder, path, 0) ? -1 : REAL(unlinkat)(folder, path, flags);
}
int rmdir(const char *path) { return on_path("rmdir", AT_FDCWD, path, 0) ? -1 : REAL(rmdir)(path); }
int mkdir(const char *path, mode_t mode) {
    return on_path("mkdir", AT_FDCWD, path, 1) ? -1 : REAL(mkdir)(path, mode);
}
int mkdirat(int folder, const char *path, mode_t mode) {
    return on_path("mkdir", folder, path, 1) ? -1 : REAL(mkdirat)(folder, path, mode);
}
#define HANDLE(name, signature, call)                                                             \
    int name signature {                                                                          \
        char path[PATH_MAX + 1];                                                                  \
        if (on_handle(#name, fd, path) > 0) event(#name, path, 0);                                \
        return call;                                                                              \
    }
HANDLE(fsync, (int fd), REAL(fsync)(fd))
HANDLE(fdatasync, (int fd), REAL(fdatasync)(fd))
HANDLE(ftruncate, (int fd, off_t size), REAL(ftruncate)(fd, size))
HANDLE(ftruncate64, (int fd, off64_t size), REAL(ftruncate64)(fd, size))
