// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * names VARIANT DIR: files under names that are relative, changed, removed, doubled or wrong. DIR is absolute, empty.
 * Every access is a 1-byte pread64.
 *   open:           makes DIR/sub/f, then opens it in 11 ways (open, openat, openat2, last creat; absolute, relative to
 *                   the current folder, to a descriptor, after chdir, through a symbolic link), each followed by one
 *                   pread64
 *   rename:         3 preads of DIR/old, rename to DIR/new, 5 preads
 *   rename-parent:  3 preads of DIR/d/f, rename of DIR/d to DIR/e, 5 preads
 *   unlink:         3 preads of DIR/f, unlink, 5 preads
 *   link:           DIR/a and DIR/b are one file: 3 preads through the first name, 5 through the second
 *   reuse:          13 times creat, pwrite64 of 1 byte, close, unlink; the pwrite64 is noted with the file's inode
 *                   number as offset and its generation as size
 *   fail:           11 opens that fail, each in its own way
 */
#include "work.h"
#include <linux/fs.h>
#include <linux/openat2.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

static const char *dir;

/* DIR/name, in memory that stays. */
static char *in_dir(const char *name)
{
	char *path;

	if (asprintf(&path, "%s/%s", dir, name) < 0)
		die("out of memory");
	return path;
}

static void preads(int fd, int calls)
{
	char data;

	for (int i = 0; i < calls; i++)
		note("pread64", fd, i, 1, syscall(SYS_pread64, fd, &data, 1L, (long)i));
}

static void pread_close(int fd)
{
	if (fd < 0)
		errno = -fd, die("an open failed");
	preads(fd, 1);
	close(fd);
}

/* creat and open have no number of their own on architectures younger than openat. */
static int do_creat(const char *path)
{
#ifdef SYS_creat
	return note_path("creat", path, NONE, NONE, NONE, syscall(SYS_creat, path, 0644));
#else
	return note_path("openat", path, NONE, NONE, NONE,
			 syscall(SYS_openat, AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, 0644));
#endif
}

static int do_open(const char *path, int flags)
{
#ifdef SYS_open
	return note_path("open", path, NONE, NONE, NONE, syscall(SYS_open, path, flags, 0644));
#else
	return note_path("openat", path, NONE, NONE, NONE, syscall(SYS_openat, AT_FDCWD, path, flags, 0644));
#endif
}

static int do_openat(int at, const char *path, int flags)
{
	return note_path("openat", path, at == AT_FDCWD ? NONE : at, NONE, NONE,
			 syscall(SYS_openat, at, path, flags, 0644));
}

static int do_openat2(int at, const char *path, int flags, int resolve)
{
	struct open_how how = {.flags = flags, .resolve = resolve};

	return note_path("openat2", path, at == AT_FDCWD ? NONE : at, NONE, NONE,
			 syscall(SYS_openat2, at, path, &how, sizeof(how)));
}

static void make_file(const char *path)
{
	int fd = open_file(path, O_WRONLY | O_CREAT | O_TRUNC);

	if (write(fd, "0123456789abcdef", 16) != 16)
		die("cannot write %s", path);
	close(fd);
}

static void run_open(void)
{
	char *file = in_dir("sub/f");
	int top, sub;

	if (mkdir(in_dir("sub"), 0755) || symlink("sub/f", in_dir("link")))
		die("cannot prepare %s", dir);
	make_file(file);
	top = open_file(dir, O_RDONLY | O_DIRECTORY);
	sub = open_file(in_dir("sub"), O_RDONLY | O_DIRECTORY);

	pread_close(do_open(file, O_RDONLY));
	pread_close(do_openat(AT_FDCWD, file, O_RDONLY));
	pread_close(do_openat2(AT_FDCWD, file, O_RDONLY, 0));
	pread_close(do_openat(top, "sub/f", O_RDONLY));
	pread_close(do_openat2(sub, "f", O_RDONLY, RESOLVE_BENEATH));
	if (chdir(dir))
		die("cannot change to %s", dir);
	pread_close(do_open("sub/f", O_RDONLY));
	pread_close(do_openat(AT_FDCWD, "link", O_RDONLY));
	if (chdir("sub"))
		die("cannot change to sub");
	pread_close(do_open("f", O_RDONLY));
	pread_close(do_openat2(AT_FDCWD, "../sub/./f", O_RDONLY, 0));
	pread_close(do_openat(top, "../../../../../../../../../proc/self/cwd/f", O_RDONLY));
	pread_close(do_creat(file)); /* write-only: its pread64 fails */
}

static void run_rename(const char *file, const char *from, const char *to)
{
	int fd;

	make_file(file);
	fd = do_openat(AT_FDCWD, file, O_RDONLY);
	preads(fd, 3);
	if (rename(from, to))
		die("cannot rename %s", from);
	preads(fd, 5);
}

static void run_unlink(void)
{
	char *file = in_dir("f");
	int fd;

	make_file(file);
	fd = do_openat(AT_FDCWD, file, O_RDONLY);
	preads(fd, 3);
	if (unlink(file))
		die("cannot unlink %s", file);
	preads(fd, 5);
}

static void run_link(void)
{
	char *a = in_dir("a"), *b = in_dir("b");
	int fd_a, fd_b;

	make_file(a);
	if (link(a, b))
		die("cannot link %s", b);
	fd_a = do_openat(AT_FDCWD, a, O_RDONLY);
	fd_b = do_openat(AT_FDCWD, b, O_RDONLY);
	preads(fd_a, 3);
	preads(fd_b, 5);
}

static void run_reuse(void)
{
	char *file = in_dir("again");

	for (int i = 0; i < 13; i++) {
		int fd = do_creat(file);
		unsigned int generation = 0;
		struct stat status;
		long result = syscall(SYS_pwrite64, fd, "x", 1L, (long)i);

		if (fstat(fd, &status))
			die("cannot stat %s", file);
		/* Filesystems without generations, tmpfs among them, refuse. */
		if (ioctl(fd, FS_IOC_GETVERSION, &generation))
			generation = 0;
		note("pwrite64", fd, status.st_ino, generation, result);
		close(fd);
		if (unlink(file))
			die("cannot unlink %s", file);
	}
}

static void run_fail(void)
{
	char *file = in_dir("f"), *loop = in_dir("loop"), *fifo = in_dir("fifo");
	char longest[300];

	make_file(file);
	if (symlink("loop", loop) || mkfifo(fifo, 0644))
		die("cannot prepare %s", dir);
	memset(longest, 'n', sizeof(longest));
	longest[sizeof(longest) - 1] = 0;
	if (chdir(dir))
		die("cannot change to %s", dir);

	do_open(in_dir("absent"), O_RDONLY);			      /* ENOENT */
	do_openat(AT_FDCWD, "absent", O_RDONLY);		      /* ENOENT */
	do_openat(AT_FDCWD, "f/below", O_RDONLY);		      /* ENOTDIR */
	do_openat(AT_FDCWD, dir, O_WRONLY);			      /* EISDIR */
	do_openat(AT_FDCWD, "loop", O_RDONLY);			      /* ELOOP */
	do_openat(AT_FDCWD, longest, O_RDONLY);			      /* ENAMETOOLONG */
	do_openat(AT_FDCWD, file, O_CREAT | O_EXCL | O_WRONLY);	      /* EEXIST */
	do_openat(987, "f", O_RDONLY);				      /* EBADF */
	do_openat2(AT_FDCWD, "../absent", O_RDONLY, RESOLVE_BENEATH); /* EXDEV */
	do_creat(in_dir("absent/f"));				      /* ENOENT */
	do_openat(AT_FDCWD, fifo, O_WRONLY | O_NONBLOCK);	      /* ENXIO */
	/* The log keeps the pointer until it is printed. */
	log_here.steps[5].path = strdup(longest);
}

int main(int argc, char **argv)
{
	if (argc != 3 || argv[2][0] != '/')
		usage("names VARIANT DIR");
	dir = argv[2];
	if (!strcmp(argv[1], "open")) {
		run_open();
	} else if (!strcmp(argv[1], "rename")) {
		run_rename(in_dir("old"), in_dir("old"), in_dir("new"));
	} else if (!strcmp(argv[1], "rename-parent")) {
		if (mkdir(in_dir("d"), 0755))
			die("cannot prepare %s", dir);
		run_rename(in_dir("d/f"), in_dir("d"), in_dir("e"));
	} else if (!strcmp(argv[1], "unlink")) {
		run_unlink();
	} else if (!strcmp(argv[1], "link")) {
		run_link();
	} else if (!strcmp(argv[1], "reuse")) {
		run_reuse();
	} else if (!strcmp(argv[1], "fail")) {
		run_fail();
	} else {
		usage("names VARIANT DIR: no such variant");
	}
	report(&log_here, 1);
	return 0;
}
