// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * flip FOLDER COUNT: opens FOLDER/0 or FOLDER/1 COUNT times while another thread changes the path's last character all
 * the time. Prints a line for each open, with the inode number of the file that it got.
 */
#include "work.h"
#include <pthread.h>
#include <sys/stat.h>

static char path[4096];
static volatile char *last;
static volatile bool is_over;

static void *flip(void *unused)
{
	(void)unused;
	while (!is_over)
		*last ^= 1;
	return NULL;
}

int main(int argc, char **argv)
{
	struct stat found;
	pthread_t thread;

	if (argc != 3)
		usage("flip FOLDER COUNT");
	snprintf(path, sizeof(path), "%s/0", argv[1]);
	last = path + strlen(path) - 1;
	errno = pthread_create(&thread, NULL, flip, NULL);
	if (errno)
		die("pthread_create");
	for (long i = number(argv[2]); i > 0; i--) {
		int fd = openat(AT_FDCWD, path, O_RDONLY);

		if (fd < 0 || fstat(fd, &found))
			die("open");
		say("{\"op\": \"openat\", \"ino\": %lu}\n", (unsigned long)found.st_ino);
		close(fd);
	}
	is_over = true;
	pthread_join(thread, NULL);
	return 0;
}
