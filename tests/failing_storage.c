/* A storage that fails, to be preloaded: the n-th call of some kinds on paths with a prefix ends in
   an error of choice, kills the process, or makes the wall clock jump. tests/failing_storage.py
   builds and arms it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* In place of an error number: SIGKILL; SIGKILL after half of a write; a jump of the clock. */
enum { KILL = -1, TEAR = -2, JUMP = -3 };
static char prefix[4096], kinds[256];
static int number, first, for_ever, seen, seen_before;
static long jump_secs, clock_offset_secs;

/* first: the call that fails, from 1; 0: none. for_ever: so do all calls after it. */
void arm(const char *a_prefix, const char *a_kinds, int a_number, int a_first, int a_for_ever) {
  first = 0;
  seen_before = seen;
  snprintf(prefix, sizeof prefix, "%s", a_prefix);
  snprintf(kinds, sizeof kinds, ",%s,", a_kinds);
  number = a_number, for_ever = a_for_ever, seen = 0;
  first = a_first;
}

void set_jump(long secs) { jump_secs = secs; }

int calls_seen(void) { return seen; }

int calls_seen_before(void) { return seen_before; }

static void die(void) {
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

static int fails(const char *kind, const char *path) {
  char wanted[64];
  if (!first || !path || strncmp(path, prefix, strlen(prefix))) return 0;
  snprintf(wanted, sizeof wanted, ",%s,", kind);
  if (!strstr(kinds, wanted)) return 0;
  int call = __sync_add_and_fetch(&seen, 1);
  if (call != first && !(call > first && for_ever)) return 0;
  if (number == KILL) die();
  if (number == JUMP) {
    clock_offset_secs = jump_secs;
    return 0;
  }
  errno = number;
  return 1;
}

static const char *path_of(int file, char *buffer, size_t size) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = readlink(link, buffer, size - 1);
  if (length < 0) return NULL;
  buffer[length] = 0;
  return buffer;
}

static const char *path_at(int folder, const char *path, char *buffer, size_t size) {
  char parent[4096];
  if (!path || path[0] == '/' || folder == AT_FDCWD) return path;
  if (!path_of(folder, parent, sizeof parent)) return path;
  snprintf(buffer, size, "%s/%s", parent, path);
  return buffer;
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = dlsym(RTLD_NEXT, #name)
#define KIND(flags) ((flags) & (O_WRONLY | O_RDWR | O_CREAT) ? "open" : "open_to_read")
#define MODE(flags) mode_t mode = 0; va_list rest; va_start(rest, flags); mode = va_arg(rest, int); va_end(rest)
#define AT(folder, path) char at[8192]; const char *whole = path_at(folder, path, at, sizeof at)
#define OF(file, kind, half) \
  char of[4096]; \
  if (file > 2 && first && fails(kind, path_of(file, of, sizeof of))) { \
    if (number != TEAR) return -1; \
    if ((half) >= 0) die(); \
  }

int open(const char *p, int f, ...) { MODE(f); REAL(open); return fails(KIND(f), p) ? -1 : real(p, f, mode); }
int open64(const char *p, int f, ...) { MODE(f); REAL(open64); return fails(KIND(f), p) ? -1 : real(p, f, mode); }
int openat(int d, const char *p, int f, ...) { MODE(f); REAL(openat); AT(d, p); return fails(KIND(f), whole) ? -1 : real(d, p, f, mode); }
int openat64(int d, const char *p, int f, ...) { MODE(f); REAL(openat64); AT(d, p); return fails(KIND(f), whole) ? -1 : real(d, p, f, mode); }
int mkdir(const char *p, mode_t m) { REAL(mkdir); return fails("mkdir", p) ? -1 : real(p, m); }
int mkdirat(int d, const char *p, mode_t m) { REAL(mkdirat); AT(d, p); return fails("mkdir", whole) ? -1 : real(d, p, m); }
int rename(const char *a, const char *b) { REAL(rename); return fails("rename", b) ? -1 : real(a, b); }
int renameat(int d, const char *a, int e, const char *b) { REAL(renameat); AT(e, b); return fails("rename", whole) ? -1 : real(d, a, e, b); }
int renameat2(int d, const char *a, int e, const char *b, unsigned f) { REAL(renameat2); AT(e, b); return fails("rename", whole) ? -1 : real(d, a, e, b, f); }
ssize_t write(int f, const void *p, size_t n) { REAL(write); OF(f, "write", real(f, p, n / 2)); return real(f, p, n); }
ssize_t pwrite(int f, const void *p, size_t n, off_t o) { REAL(pwrite); OF(f, "write", real(f, p, n / 2, o)); return real(f, p, n, o); }
ssize_t pwrite64(int f, const void *p, size_t n, off64_t o) { REAL(pwrite64); OF(f, "write", real(f, p, n / 2, o)); return real(f, p, n, o); }
ssize_t writev(int f, const struct iovec *v, int n) { REAL(writev); OF(f, "write", real(f, v, n / 2)); return real(f, v, n); }
int fsync(int f) { REAL(fsync); OF(f, "fsync", 0); return real(f); }
int fdatasync(int f) { REAL(fdatasync); OF(f, "fsync", 0); return real(f); }
ssize_t read(int f, void *p, size_t n) { REAL(read); OF(f, "read", 0); return real(f, p, n); }
ssize_t pread(int f, void *p, size_t n, off_t o) { REAL(pread); OF(f, "read", 0); return real(f, p, n, o); }
ssize_t pread64(int f, void *p, size_t n, off64_t o) { REAL(pread64); OF(f, "read", 0); return real(f, p, n, o); }
int unlink(const char *p) { REAL(unlink); return fails("remove", p) ? -1 : real(p); }
int rmdir(const char *p) { REAL(rmdir); return fails("remove", p) ? -1 : real(p); }
int unlinkat(int d, const char *p, int f) { REAL(unlinkat); AT(d, p); return fails("remove", whole) ? -1 : real(d, p, f); }
int clock_gettime(clockid_t c, struct timespec *t) {
  REAL(clock_gettime);
  int status = real(c, t);
  if (!status && (c == CLOCK_REALTIME || c == CLOCK_REALTIME_COARSE)) t->tv_sec += clock_offset_secs;
  return status;
}
int gettimeofday(struct timeval *t, void *z) {
  REAL(gettimeofday);
  int status = real(t, z);
  if (!status) t->tv_sec += clock_offset_secs;
  return status;
}
time_t time(time_t *t) {
  REAL(time);
  time_t now = real(NULL) + clock_offset_secs;
  if (t) *t = now;
  return now;
}
