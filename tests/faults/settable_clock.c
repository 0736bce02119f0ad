/* Preloaded into processes under test: the real-time clock plus an offset that the test sets in a shared file.
 *
 * Only what tells the time of day is changed. Sleeps, timers and the monotonic clock stay as they are, which is
 * what a machine does when its time is set. (libfaketime also changes sleeps, and breaks Python's.)
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long long *offset_s;
static long long none;

static long long offset(void) {
    if (offset_s == NULL) {
        const char *path = getenv("SETTABLE_CLOCK_FILE");
        int file = path == NULL ? -1 : open(path, O_RDONLY);
        void *mapped = file < 0 ? MAP_FAILED : mmap(NULL, sizeof none, PROT_READ, MAP_SHARED, file, 0);
        offset_s = mapped == MAP_FAILED ? &none : mapped;
        if (file >= 0) close(file);
    }
    return *offset_s;
}

int clock_gettime(clockid_t id, struct timespec *at) {
    int result = (int)syscall(SYS_clock_gettime, id, at);
    if (result == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) at->tv_sec += offset();
    return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0) return -1;
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at != NULL) *at = now.tv_sec;
    return now.tv_sec;
}
