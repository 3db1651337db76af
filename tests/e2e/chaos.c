/* What a machine does to a program: a clock that is off, a disk that refuses to be written to.
 *
 * Preloaded into one program. HEATPOOL_CHAOS names a file of two int64, which may change at any time:
 * nanoseconds to add to CLOCK_REALTIME, and the errno that each write below HEATPOOL_CHAOS_FOLDER
 * ends with (0: none).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

struct wish {
    int64_t shift_ns;
    int64_t error;
};

static const struct wish none;
static volatile const struct wish *wish = &none;
static const char *folder = "";

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("HEATPOOL_CHAOS");
    if (path == NULL) return;
    if (getenv("HEATPOOL_CHAOS_FOLDER") != NULL) folder = getenv("HEATPOOL_CHAOS_FOLDER");
    int fd = REAL(open)(path, O_RDONLY | O_CLOEXEC);
    void *at = mmap(NULL, sizeof(struct wish), PROT_READ, MAP_SHARED, fd, 0);
    if (at != MAP_FAILED) wish = at;
    close(fd);
}

int clock_gettime(clockid_t id, struct timespec *ts) {
    static int (*real)(clockid_t, struct timespec *);
    if (real == NULL) real = REAL(clock_gettime);
    int rc = real(id, ts);
    if (rc != 0 || id != CLOCK_REALTIME || wish->shift_ns == 0) return rc;
    int64_t ns = (int64_t)ts->tv_sec * 1000000000 + ts->tv_nsec + wish->shift_ns;
    ts->tv_sec = ns / 1000000000;
    ts->tv_nsec = ns % 1000000000;
    return rc;
}

static int path_refused(const char *path) {
    if (wish->error == 0 || *folder == 0 || strncmp(path, folder, strlen(folder)) != 0) return 0;
    errno = (int)wish->error;
    return 1;
}

static int refused(int fd) {
    if (wish->error == 0) return 0;
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return path_refused(path);
}

ssize_t write(int fd, const void *from, size_t n) {
    return refused(fd) ? -1 : REAL(write)(fd, from, n);
}

ssize_t pwrite(int fd, const void *from, size_t n, off_t at) {
    return refused(fd) ? -1 : REAL(pwrite)(fd, from, n, at);
}

ssize_t pwrite64(int fd, const void *from, size_t n, off64_t at) {
    return refused(fd) ? -1 : REAL(pwrite64)(fd, from, n, at);
}

int ftruncate(int fd, off_t n) { return refused(fd) ? -1 : REAL(ftruncate)(fd, n); }
int ftruncate64(int fd, off64_t n) { return refused(fd) ? -1 : REAL(ftruncate64)(fd, n); }
int fsync(int fd) { return refused(fd) ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return refused(fd) ? -1 : REAL(fdatasync)(fd); }
int posix_fallocate(int fd, off_t at, off_t n) {
    return refused(fd) ? errno : REAL(posix_fallocate)(fd, at, n);
}
int unlink(const char *path) { return path_refused(path) ? -1 : REAL(unlink)(path); }
int rename(const char *from, const char *to) {
    return path_refused(to) ? -1 : REAL(rename)(from, to);
}
int mkdir(const char *path, mode_t mode) {
    return path_refused(path) ? -1 : REAL(mkdir)(path, mode);
}

static int is_writing(int flags) { return (flags & O_ACCMODE) != O_RDONLY || (flags & O_CREAT); }

static mode_t mode_of(int flags, va_list rest) {
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
}

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = mode_of(flags, rest);
    va_end(rest);
    return is_writing(flags) && path_refused(path) ? -1 : REAL(open)(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = mode_of(flags, rest);
    va_end(rest);
    return is_writing(flags) && path_refused(path) ? -1 : REAL(open64)(path, flags, mode);
}
