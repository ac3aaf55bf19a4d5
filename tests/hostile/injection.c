/* Stands in front of the C library (LD_PRELOAD): the Nth call that writes fails, writes less, or is
   the last thing that the process does. Unless it is armed, every call goes through as it is. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { SHORT = -1, KILL = -2 };

static atomic_int armed, count;
static int nth, fault;
static char names[1 << 16];

void injection_arm(int at, int what) {
    nth = at, fault = what, names[0] = 0;
    atomic_store(&count, 0);
    atomic_store(&armed, 1);
}

const char *injection_disarm(void) {
    atomic_store(&armed, 0);
    return names;
}

/* Whether this call is the one; a call that cannot write less goes through then. */
static int hit(const char *name) {
    if (!atomic_load(&armed)) return 0;
    int number = atomic_fetch_add(&count, 1);
    if (strlen(names) + strlen(name) + 2 < sizeof names) strcat(strcat(names, name), " ");
    if (number != nth) return 0;
    if (fault == KILL) kill(getpid(), SIGKILL);
    errno = fault;
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FAILING(name, result, parameters, arguments)                     \
    result name parameters {                                             \
        if (hit(#name) && fault != SHORT) return -1;                     \
        return REAL(name) arguments;                                     \
    }
#define WRITING(name, parameters, size, whole, part)                     \
    ssize_t name parameters {                                            \
        if (fd > 2 && hit(#name)) {                                      \
            if (fault != SHORT) return -1;                               \
            if (size > 1) return REAL(name) part;                        \
        }                                                                \
        return REAL(name) whole;                                         \
    }

WRITING(write, (int fd, const void *data, size_t size), size, (fd, data, size), (fd, data, size / 2))
WRITING(pwrite, (int fd, const void *data, size_t size, off_t at), size, (fd, data, size, at), (fd, data, size / 2, at))
WRITING(pwrite64, (int fd, const void *data, size_t size, off64_t at), size, (fd, data, size, at), (fd, data, size / 2, at))

static size_t length(const struct iovec *parts, int many) {
    size_t all = 0;
    for (int i = 0; i < many; i++) all += parts[i].iov_len;
    return all;
}
#define VECTOR(name, offset)                                                            \
    ssize_t name(int fd, const struct iovec *parts, int many, offset at) {               \
        if (hit(#name)) {                                                               \
            if (fault != SHORT) return -1;                                              \
            if (length(parts, many) > 1) {                                              \
                struct iovec first = parts[0];                                          \
                first.iov_len = first.iov_len > 1 ? first.iov_len / 2 : first.iov_len;  \
                return REAL(name)(fd, &first, 1, at);                                   \
            }                                                                           \
        }                                                                               \
        return REAL(name)(fd, parts, many, at);                                         \
    }
VECTOR(pwritev, off_t)
VECTOR(pwritev64, off64_t)

ssize_t sendfile(int out, int in, off_t *at, size_t size);
ssize_t sendfile(int out, int in, off_t *at, size_t size) {
    if (hit("sendfile")) {
        if (fault != SHORT) return -1;
        size = 1;
    }
    return ((ssize_t(*)(int, int, off_t *, size_t))dlsym(RTLD_NEXT, "sendfile"))(out, in, at, size);
}
ssize_t sendfile64(int out, int in, off64_t *at, size_t size);
ssize_t sendfile64(int out, int in, off64_t *at, size_t size) { return sendfile(out, in, at, size); }
ssize_t copy_file_range(int in, off64_t *a, int out, off64_t *b, size_t size, unsigned flags) {
    if (hit("copy_file_range")) {
        if (fault != SHORT) return -1;
        size = 1;
    }
    return REAL(copy_file_range)(in, a, out, b, size, flags);
}

FAILING(fsync, int, (int fd), (fd))
FAILING(fdatasync, int, (int fd), (fd))
FAILING(ftruncate, int, (int fd, off_t size), (fd, size))
FAILING(ftruncate64, int, (int fd, off64_t size), (fd, size))
FAILING(rename, int, (const char *a, const char *b), (a, b))
FAILING(renameat, int, (int x, const char *a, int y, const char *b), (x, a, y, b))
FAILING(renameat2, int, (int x, const char *a, int y, const char *b, unsigned flags), (x, a, y, b, flags))
FAILING(link, int, (const char *a, const char *b), (a, b))
FAILING(linkat, int, (int x, const char *a, int y, const char *b, int flags), (x, a, y, b, flags))
FAILING(unlink, int, (const char *a), (a))
FAILING(unlinkat, int, (int x, const char *a, int flags), (x, a, flags))
FAILING(rmdir, int, (const char *a), (a))
FAILING(mkdir, int, (const char *a, mode_t mode), (a, mode))
FAILING(mkdirat, int, (int x, const char *a, mode_t mode), (x, a, mode))
FAILING(chmod, int, (const char *a, mode_t mode), (a, mode))
FAILING(fchmod, int, (int fd, mode_t mode), (fd, mode))
FAILING(fchmodat, int, (int x, const char *a, mode_t mode, int flags), (x, a, mode, flags))

/* Only those that open for writing, or a folder: a library is opened as well. */
#define OPENING(name, parameters, at)                                                      \
    int name parameters {                                                                 \
        mode_t mode = 0;                                                                  \
        if (flags & (O_CREAT | O_TMPFILE)) {                                              \
            va_list rest;                                                                 \
            va_start(rest, flags);                                                        \
            mode = va_arg(rest, mode_t);                                                  \
            va_end(rest);                                                                 \
        }                                                                                 \
        if (flags & (O_WRONLY | O_RDWR | O_CREAT | O_DIRECTORY) && strncmp(path, "/dev/", 5) && hit(#name) && fault != SHORT) return -1; \
        return REAL(name) at;                                                             \
    }
OPENING(open, (const char *path, int flags, ...), (path, flags, mode))
OPENING(open64, (const char *path, int flags, ...), (path, flags, mode))
OPENING(openat, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))
OPENING(openat64, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))

/* The C library's own files call the kernel themselves; TensorFlow writes with these. */
#define FILING(name)                                                          \
    FILE *name(const char *path, const char *mode) {                          \
        if (mode[0] != 'r' && hit(#name) && fault != SHORT) return NULL;      \
        return REAL(name)(path, mode);                                        \
    }
FILING(fopen)
FILING(fopen64)
size_t fwrite(const void *data, size_t size, size_t many, FILE *file) {
    if (file != stdout && file != stderr && hit("fwrite") && fault != SHORT)
        return REAL(fwrite)(data, size, many / 2, file);  /* which means an error */
    return REAL(fwrite)(data, size, many, file);
}
int fflush(FILE *file) {
    if (file && file != stdout && file != stderr && hit("fflush") && fault != SHORT) return EOF;
    return REAL(fflush)(file);
}
