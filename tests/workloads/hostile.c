// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * hostile DIR: files whose names are made to mislead whoever prints or keeps them. DIR is absolute. 7 files: with a
 * newline, an escape sequence, a byte that is not UTF-8, a right-to-left override (U+202E), a component of 255 bytes,
 * 71 folders deep, and with a path above 4096 bytes that can only be reached by chdir. Each is created by openat,
 * written once (3 bytes, pwrite64) and read once (3 bytes, pread64); then the deep folders are removed. Prints for each
 * {"op": "name", "name": "<hex of the path below DIR>"}.
 */
#include "work.h"
#include <sys/stat.h>

enum { SIZE = 3, LEVELS_DEEP = 71, LEVELS_LONG = 19, LONG_NAME = 240, MAX_NAME = 255 };

static void make(const char *name)
{
	char data[SIZE] = "abc";
	int fd = syscall(SYS_openat, AT_FDCWD, name, O_RDWR | O_CREAT | O_CLOEXEC, 0644);

	if (fd < 0)
		die("cannot create a file");
	if (syscall(SYS_pwrite64, fd, data, (long)SIZE, 0L) != SIZE)
		die("cannot write");
	if (syscall(SYS_pread64, fd, data, (long)SIZE, 0L) != SIZE)
		die("cannot read");
	close(fd);
}

static void print_name(const char *folder, int levels, const char *name)
{
	char hex[16384], *end = hex;

	for (int i = 0; i < levels; i++) {
		for (const char *c = folder; *c; c++)
			end += sprintf(end, "%02x", (unsigned char)*c);
		end += sprintf(end, "2f");
	}
	for (const char *c = name; *c; c++)
		end += sprintf(end, "%02x", (unsigned char)*c);
	say("{\"op\": \"name\", \"name\": \"%s\"}\n", hex);
}

static void make_below(const char *folder, int levels)
{
	for (int i = 0; i < levels; i++)
		if (mkdir(folder, 0755) || chdir(folder))
			die("cannot go down");
	make("leaf");
	if (unlink("leaf"))
		die("cannot unlink");
	for (int i = 0; i < levels; i++)
		if (chdir("..") || rmdir(folder))
			die("cannot come up");
	print_name(folder, levels, "leaf");
}

int main(int argc, char **argv)
{
	char longest[MAX_NAME + 1], folder[LONG_NAME + 1];
	const char *names[] = {"new\nline", "esc\033[2J", "latin\xff", "left\xe2\x80\xaethgir", longest};

	if (argc != 2 || argv[1][0] != '/')
		usage("hostile DIR");
	if (chdir(argv[1]))
		die("cannot change to %s", argv[1]);
	memset(longest, 'n', MAX_NAME);
	longest[MAX_NAME] = 0;
	memset(folder, 'l', LONG_NAME);
	folder[LONG_NAME] = 0;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		make(names[i]);
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		print_name("", 0, names[i]);
	make_below("d", LEVELS_DEEP);
	make_below(folder, LEVELS_LONG);
	return 0;
}
