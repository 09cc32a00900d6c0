// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * script DIR SCRIPT: makes the system calls that the file SCRIPT tells, in that order, by several processes and threads
 * ("actors") of which one runs at a time. DIR is where they start. A line is the number of an actor and what it does;
 * what follows a # is not read. Actor 0 is there at the beginning, with no descriptor open below 98.
 *   0 openat -100 "a 66 420   a system call, by the name of its number in asm/unistd.h, with what is in its registers:
 *                             numbers, or addresses of   "a  the string a   @a  the string DIR/a   &  64 KiB of memory
 *                             !  no memory   *100  a 64-bit number, 100   [7,0,9  a vector of parts of 64 KiB of memory
 *                             $1  mapping 1   {66,420,0  a struct open_how
 *   0 map 1 8192 3 2 5 0      mmap as mapping 1: length, protection, flags, descriptor, offset
 *   0 remap 1 8192 4096 1     mremap of mapping 1: old length, new length, flags
 *   0 load 1 2, 0 store 1 2   reads, writes the first byte of page 2 of mapping 1
 *   0 fork 1, 0 thread 2      makes actor 1, a process, or actor 2, a thread
 *   0 exec                    replaces its program by this one, which goes on with the next line
 *   0 exit 7, 0 exit_group 7  ends the thread, ends the process. The next line does not wait for the end
 * When all actors have ended, prints {"line": 3, "result": -9} for each line: -errno for a call that failed, else what
 * it returned; 0 for what is no system call, and for an address.
 *
 * A turn is handed on through a pipe for each actor, which stays open under a number from 100 on. What an actor does to
 * files before its first line, at the beginning and after exec, ends with closing SCRIPT.
 */
#include "work.h"
#include <linux/openat2.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/wait.h>

enum {
	ACTORS = 16,
	WORDS = 8, /* of a line, with the actor */
	PARTS = 8, /* of a vector */
	MAPPINGS = 8,
	ERRORS = 98, /* descriptors that no line may touch */
	RESULTS = 99,
	TURNS = 100, /* of each actor: the end to read from, the end to write to */
	MAX_FDS = 256,
	FAILED = 99, /* the exit status of an actor that could not do as told */
};

struct line {
	int actor;
	int count;
	char *words[WORDS];
};

struct outcome_of_line {
	long line;
	long result;
};

static const struct {
	const char *name;
	long number;
} calls[] = {
	{"openat", SYS_openat},
	{"openat2", SYS_openat2},
	{"close", SYS_close},
	{"close_range", SYS_close_range},
	{"dup", SYS_dup},
	{"dup3", SYS_dup3},
	{"fcntl", SYS_fcntl},
	{"lseek", SYS_lseek},
	{"read", SYS_read},
	{"write", SYS_write},
	{"pread64", SYS_pread64},
	{"pwrite64", SYS_pwrite64},
	{"readv", SYS_readv},
	{"writev", SYS_writev},
	{"preadv", SYS_preadv},
	{"pwritev", SYS_pwritev},
	{"preadv2", SYS_preadv2},
	{"pwritev2", SYS_pwritev2},
	{"munmap", SYS_munmap},
	{"madvise", SYS_madvise},
	{"msync", SYS_msync},
	{"newfstat", SYS_fstat},
	{"newfstatat", SYS_newfstatat},
	{"statx", SYS_statx},
	{"fallocate", SYS_fallocate},
	{"fsync", SYS_fsync},
	{"fdatasync", SYS_fdatasync},
	{"truncate", SYS_truncate},
	{"ftruncate", SYS_ftruncate},
	{"renameat2", SYS_renameat2},
	{"linkat", SYS_linkat},
	{"unlinkat", SYS_unlinkat},
	{"mkdirat", SYS_mkdirat},
	{"sendfile64", SYS_sendfile},
	{"copy_file_range", SYS_copy_file_range},
#ifdef SYS_open /* and the others that architectures younger than openat do not have */
	{"open", SYS_open},
	{"creat", SYS_creat},
	{"dup2", SYS_dup2},
	{"rename", SYS_rename},
	{"link", SYS_link},
	{"unlink", SYS_unlink},
	{"mkdir", SYS_mkdir},
	{"rmdir", SYS_rmdir},
#endif
};

static const char *program, *dir, *script;
static struct line *lines;
static int line_count;
static char *mappings[MAPPINGS];
static char memory[65536];

static void __attribute__((noreturn)) fail(const char *what, int line)
{
	dprintf(ERRORS, "script: line %d: %s: %s\n", line, what, strerror(errno));
	syscall(SYS_exit_group, FAILED);
	__builtin_unreachable();
}

/* Reads the script and closes it: what comes behind that is told by its lines. */
static void load_script(void)
{
	int fd = open(script, O_RDONLY);
	off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
	char *text = size < 0 ? NULL : malloc(size + 1);
	char *rest, *next;

	if (!text || pread(fd, text, size, 0) != size)
		fail("cannot read the script", -1);
	text[size] = 0;
	lines = calloc(size / 2 + 1, sizeof(*lines));
	if (!lines)
		fail("out of memory", -1);
	for (rest = text; (next = strsep(&rest, "\n"));) {
		struct line *line = &lines[line_count];
		char *word;

		next = strsep(&next, "#");
		while ((word = strsep(&next, " "))) {
			if (!*word)
				continue;
			if (line->count == WORDS)
				fail("too many words", line_count);
			line->words[line->count++] = word;
		}
		if (!line->count)
			continue;
		line->actor = atoi(line->words[0]);
		memmove(line->words, line->words + 1, --line->count * sizeof(*line->words));
		line_count++;
	}
	close(fd);
}

static void note_result(int line, long result)
{
	struct outcome_of_line noted = {line, result};

	if (write(RESULTS, &noted, sizeof(noted)) != sizeof(noted))
		fail("cannot tell the result", line);
}

static void hand_on(int line)
{
	if (line < line_count && write(TURNS + 2 * lines[line].actor + 1, &line, sizeof(line)) != sizeof(line))
		fail("cannot hand on", line);
}

/* Waits for the actor's turn; returns the line. */
static int take_turn(int actor)
{
	int line;

	if (read(TURNS + 2 * actor, &line, sizeof(line)) != sizeof(line))
		fail("nobody handed on", -1);
	return line;
}

/* What a call needs in memory while it runs. */
struct operands {
	char paths[2][4096];
	int path_count;
	int64_t numbers[2];
	int number_count;
	struct iovec parts[PARTS];
	struct open_how how;
};

static long vector(const char *word, struct operands *operands)
{
	char *end;
	int i = 0;

	do {
		operands->parts[i++] = (struct iovec){memory, strtoul(word, &end, 10)};
		word = end + 1;
	} while (*end == ',' && i < PARTS);
	return (long)operands->parts;
}

static long open_how(const char *word, struct operands *operands)
{
	char *end;

	operands->how.flags = strtoull(word, &end, 10);
	operands->how.mode = strtoull(end + 1, &end, 10);
	operands->how.resolve = strtoull(end + 1, NULL, 10);
	return (long)&operands->how;
}

/* What a word stands for in a register. */
static long value_of(const char *word, struct operands *operands)
{
	char *path;

	switch (*word) {
	case '"':
		return (long)(word + 1);
	case '@':
		path = operands->paths[operands->path_count++ & 1];
		snprintf(path, sizeof(operands->paths[0]), "%s/%s", dir, word + 1);
		return (long)path;
	case '&':
		return (long)memory;
	case '!':
		return 8;
	case '*':
		operands->numbers[operands->number_count & 1] = strtoll(word + 1, NULL, 10);
		return (long)&operands->numbers[operands->number_count++ & 1];
	case '[':
		return vector(word + 1, operands);
	case '{':
		return open_how(word + 1, operands);
	case '$':
		return (long)mappings[atoi(word + 1) & (MAPPINGS - 1)];
	}
	return strtol(word, NULL, 10);
}

static long make_call(int at)
{
	const struct line *line = &lines[at];
	struct operands operands = {};
	long values[WORDS] = {};

	for (int i = 1; i < line->count; i++)
		values[i - 1] = value_of(line->words[i], &operands);
	for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++)
		if (!strcmp(calls[i].name, line->words[0]))
			return outcome(syscall(calls[i].number, values[0], values[1], values[2], values[3], values[4],
					       values[5]));
	errno = EINVAL;
	fail(line->words[0], at);
}

static long argument(int at, int which)
{
	return which < lines[at].count ? strtol(lines[at].words[which], NULL, 10) : 0;
}

static long make_mapping(int at)
{
	long address = syscall(SYS_mmap, 0, argument(at, 2), argument(at, 3), argument(at, 4), argument(at, 5),
			       argument(at, 6));

	if (address == -1)
		return -errno;
	mappings[argument(at, 1) & (MAPPINGS - 1)] = (char *)address;
	return 0;
}

static long make_remapping(int at)
{
	char **mapping = &mappings[argument(at, 1) & (MAPPINGS - 1)];
	long address = syscall(SYS_mremap, *mapping, argument(at, 2), argument(at, 3), argument(at, 4));

	if (address == -1)
		return -errno;
	*mapping = (char *)address;
	return 0;
}

static volatile char *page_of(int at)
{
	return mappings[argument(at, 1) & (MAPPINGS - 1)] + argument(at, 2) * PAGE;
}

static void *run_thread(void *actor);

static void make_thread(int at)
{
	pthread_t thread;

	errno = pthread_create(&thread, NULL, run_thread, (void *)argument(at, 1));
	if (errno)
		fail("cannot create a thread", at);
}

static void make_exec(int at)
{
	char actor[16], line[16];
	char *again[] = {(char *)program, (char *)dir, (char *)script, actor, line, NULL};

	snprintf(actor, sizeof(actor), "%d", lines[at].actor);
	snprintf(line, sizeof(line), "%d", at);
	execv(program, again);
	fail("cannot execute", at);
}

static bool does(int at, const char *what)
{
	return !strcmp(lines[at].words[0], what);
}

/* Does the lines of an actor, and of those that it becomes. */
static void __attribute__((noreturn)) run(int actor, int at)
{
	for (;; at++) {
		long result = 0;

		if (at == line_count)
			fail("the script has no end", at);
		if (lines[at].actor != actor) {
			hand_on(at);
			at = take_turn(actor);
		}
		if (does(at, "exit") || does(at, "exit_group")) {
			note_result(at, 0);
			hand_on(at + 1);
			syscall(does(at, "exit") ? SYS_exit : SYS_exit_group, argument(at, 1));
		} else if (does(at, "fork")) {
			pid_t child = fork();

			if (child < 0)
				fail("cannot fork", at);
			if (!child) {
				actor = argument(at, 1);
				at = take_turn(actor) - 1;
				continue;
			}
		} else if (does(at, "thread")) {
			make_thread(at);
		} else if (does(at, "exec")) {
			make_exec(at);
		} else if (does(at, "map")) {
			result = make_mapping(at);
		} else if (does(at, "remap")) {
			result = make_remapping(at);
		} else if (does(at, "load")) {
			(void)*page_of(at);
		} else if (does(at, "store")) {
			*page_of(at) = 1;
		} else {
			result = make_call(at);
		}
		note_result(at, result);
	}
}

static void *run_thread(void *actor)
{
	run((long)actor, take_turn((long)actor));
}

static void put_at(int fd, int at)
{
	if (fd == at)
		return;
	if (dup2(fd, at) != at)
		die("cannot prepare descriptors");
	close(fd);
}

/* The first actor: descriptors below 98 are closed. */
static void begin(void)
{
	if (setpgid(0, 0) || chdir(dir) || close_range(0, ERRORS - 1, 0))
		fail("cannot prepare", -1);
	load_script();
	run(0, 0);
}

static void print_results(int from)
{
	struct outcome_of_line noted;

	while (read(from, &noted, sizeof(noted)) == sizeof(noted))
		printf("{\"line\": %ld, \"result\": %ld}\n", noted.line, noted.result);
}

/* Waits for the end of all actors, which become its children when their parents end. */
static void wait_for_all(pid_t first)
{
	int status;

	while (wait(&status) > 0) {
		if (!WIFEXITED(status) || WEXITSTATUS(status) == FAILED) {
			kill(-first, SIGKILL);
			errno = 0;
			die("an actor failed, status %#x", status);
		}
	}
}

int main(int argc, char **argv)
{
	int ends[2], results[2];
	pid_t first;

	if (argc < 3 || argv[1][0] != '/' || argv[2][0] != '/')
		usage("script DIR SCRIPT");
	program = argv[0];
	dir = argv[1];
	script = argv[2];
	if (argc == 5) { /* after exec */
		load_script();
		note_result(atoi(argv[4]), 0);
		run(atoi(argv[3]), atoi(argv[4]) + 1);
	}
	if (setrlimit(RLIMIT_NOFILE, &(struct rlimit){MAX_FDS, MAX_FDS}) || prctl(PR_SET_CHILD_SUBREAPER, 1) ||
	    dup2(STDERR_FILENO, ERRORS) != ERRORS || pipe(results))
		die("cannot prepare");
	put_at(results[1], RESULTS);
	for (int i = 0; i < ACTORS; i++) {
		if (pipe(ends))
			die("cannot prepare");
		put_at(ends[0], TURNS + 2 * i);
		put_at(ends[1], TURNS + 2 * i + 1);
	}
	first = fork();
	if (first < 0)
		die("cannot fork");
	if (!first)
		begin();
	close(RESULTS);
	wait_for_all(first);
	print_results(results[0]);
	return 0;
}
