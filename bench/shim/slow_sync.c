/*
 * Makes every disk sync of a process take longer, as a real disk behind a network would.
 *
 *   cc -shared -fPIC -O2 -o slow_sync.so slow_sync.c -ldl
 *   LD_PRELOAD=./slow_sync.so SLOW_SYNC_US=2000 postgres …
 *
 * With wal_sync_method = fdatasync, a commit waits in fdatasync. The rest of the server also uses the other calls.
 * After the delay, the real call follows.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

static void wait_a_little(void)
{
	static long microseconds = -1;
	struct timespec rest;

	if (microseconds < 0)
	{
		const char *text = getenv("SLOW_SYNC_US");
		microseconds = text ? atol(text) : 0;
	}
	rest.tv_sec = microseconds / 1000000;
	rest.tv_nsec = microseconds % 1000000 * 1000;
	while (nanosleep(&rest, &rest) != 0 && errno == EINTR)
		;
}

int fdatasync(int fd)
{
	static int (*real)(int);

	if (real == NULL)
		real = (int (*)(int)) dlsym(RTLD_NEXT, "fdatasync");
	wait_a_little();
	return real(fd);
}

int fsync(int fd)
{
	static int (*real)(int);

	if (real == NULL)
		real = (int (*)(int)) dlsym(RTLD_NEXT, "fsync");
	wait_a_little();
	return real(fd);
}
