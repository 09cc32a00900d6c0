// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * actor FILE serve IN OUT: does what it is told. Takes commands from descriptor IN, a line each, and answers each with a
 * line on OUT once it is done: "done NUMBER". The first line it writes is "ready PID". Ends when IN does.
 * actor FILE do COMMAND…: does these and ends.
 *   read OFFSET COUNT        COUNT pread64 calls of 1 byte of FILE, at OFFSET, OFFSET + 1, …
 *   take FIFO                1 read of 5 bytes from FIFO, which may block
 *   name NAME                the calling thread's name, by prctl(2)
 *   comm NAME                the process's name, by /proc/PID/comm; a thread does so once the first thread sleeps
 *   user UID                 the calling thread's user, by setresuid(2)
 *   exec PATH                becomes that program, which is to be an actor: it answers "ready PID"
 *   fork                     makes a child, a helper; answers its number
 *   thread                   makes a thread, a helper; answers its number
 *   N COMMAND                has helper N (from 1, as they were made) do it, and passes its answer on
 *   end                      a helper ends
 *   spawn PATH OFFSET COUNT  a child executes PATH, reads as above, and is waited for
 *   storm CHILDREN AT_ONCE OFFSET COUNT PATH…
 *                            so many children, up to AT_ONCE at a time: child k executes the next PATH in turn and reads
 *                            COUNT bytes from OFFSET + k * COUNT on
 */
#include "work.h"
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>

enum { LINE = 4096, HELPERS = 16, TAKEN = 5, FDS = 3 + 4 * HELPERS };

struct helper {
	int to, from;
	pid_t pid; /* 0: a thread */
	pthread_t thread;
};

struct loop {
	int in, out;
	struct helper helpers[HELPERS];
	int count;
};

static const char *path;
static int file;
static int main_in, main_out; /* where a program that replaces this one takes its commands from */

static void serve(int in, int out);

static void __attribute__((format(printf, 2, 3))) answer(int out, const char *format, ...)
{
	char text[64];
	va_list args;
	int size;

	va_start(args, format);
	size = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (write(out, text, size) != size)
		_exit(0); /* nobody listens any more */
}

/* A line without its end; false when there is none. */
static bool take_line(int in, char *line)
{
	for (size_t i = 0; i < LINE; i++) {
		if (read(in, &line[i], 1) != 1)
			return false;
		if (line[i] == '\n') {
			line[i] = 0;
			return true;
		}
	}
	errno = 0, die("a command is too long");
}

static void preads(long offset, long calls)
{
	char data;

	for (long i = 0; i < calls; i++)
		syscall(SYS_pread64, file, &data, 1L, offset + i);
}

static void take(const char *fifo)
{
	int fd = open_file(fifo, O_RDWR);
	char data[TAKEN];

	syscall(SYS_read, fd, data, (long)TAKEN);
	close(fd);
}

/* The first thread sleeps: it waits for an answer. */
static bool leader_sleeps(void)
{
	char name[64], text[256], *state;
	ssize_t size;
	int fd;

	snprintf(name, sizeof(name), "/proc/self/task/%d/stat", getpid());
	fd = open_file(name, O_RDONLY);
	size = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[size > 0 ? size : 0] = 0;
	state = strrchr(text, ')');
	return state && state[2] == 'S';
}

static void write_comm(const char *name)
{
	char own[64];
	int fd;

	while (thread_id() != getpid() && !leader_sleeps())
		sched_yield();
	snprintf(own, sizeof(own), "/proc/%d/comm", getpid());
	fd = open_file(own, O_WRONLY);
	if (write(fd, name, strlen(name)) < 0)
		die("cannot write %s", own);
	close(fd);
}

static void become(const char *program)
{
	char in[16], out[16];

	fcntl(main_in, F_SETFD, 0);
	fcntl(main_out, F_SETFD, 0);
	snprintf(in, sizeof(in), "%d", main_in);
	snprintf(out, sizeof(out), "%d", main_out);
	execl(program, program, path, "serve", in, out, NULL);
	die("cannot execute %s", program);
}

static void wait_for(pid_t child)
{
	int status;

	if (waitpid(child, &status, 0) < 0 || status)
		errno = 0, die("a child failed");
}

static pid_t start(const char *program, long offset, long calls)
{
	char command[64];
	pid_t child;

	snprintf(command, sizeof(command), "read %ld %ld", offset, calls);
	child = fork();
	if (child < 0)
		die("cannot fork");
	if (!child) {
		execl(program, program, path, "do", command, NULL);
		_exit(127);
	}
	return child;
}

static void storm(char *words)
{
	long numbers[4];
	char *programs[8], *word;
	int count = 0, running = 0;

	for (int i = 0; i < 4; i++)
		numbers[i] = number(strsep(&words, " "));
	while (count < 8 && (word = strsep(&words, " ")))
		programs[count++] = word;
	for (long child = 0; child < numbers[0]; child++) {
		if (running == numbers[1])
			wait_for(-1), running--;
		start(programs[child % count], numbers[2] + child * numbers[3], numbers[3]);
		running++;
	}
	for (; running; running--)
		wait_for(-1);
}

static void *serve_thread(void *arg)
{
	int *ends = arg;

	serve(ends[0], ends[1]);
	close(ends[0]);
	close(ends[1]);
	free(ends);
	return NULL;
}

/* Closes what a child must not hold: an end of another's pipe, or that one would never see its end. */
static void keep_only(int in, int out)
{
	for (int fd = 3; fd < FDS; fd++)
		if (fd != file && fd != in && fd != out)
			close(fd);
}

static long make_helper(struct loop *loop, bool is_thread)
{
	struct helper *helper = &loop->helpers[loop->count];
	int *ends = malloc(2 * sizeof(int)), to[2], from[2];
	char line[LINE];

	if (loop->count == HELPERS || !ends || pipe2(to, O_CLOEXEC) || pipe2(from, O_CLOEXEC))
		die("cannot make a helper");
	*helper = (struct helper){.to = to[1], .from = from[0]};
	if (is_thread) {
		ends[0] = to[0];
		ends[1] = from[1];
		errno = pthread_create(&helper->thread, NULL, serve_thread, ends);
		if (errno)
			die("cannot create a thread");
	} else {
		free(ends);
		helper->pid = fork();
		if (helper->pid < 0)
			die("cannot fork");
		if (!helper->pid) {
			keep_only(to[0], from[1]);
			main_in = to[0];
			main_out = from[1];
			serve(main_in, main_out);
			_exit(0);
		}
		close(to[0]);
		close(from[1]);
	}
	loop->count++;
	if (!take_line(helper->from, line))
		errno = 0, die("a helper did not get ready");
	return number(line + strlen("ready "));
}

static void dismiss(struct helper *helper)
{
	if (helper->to < 0)
		return;
	close(helper->to);
	if (helper->pid)
		wait_for(helper->pid);
	else
		pthread_join(helper->thread, NULL);
	close(helper->from);
	helper->to = -1;
}

/* Has a helper do a command, and passes its answer on. */
static void delegate(struct loop *loop, char *line)
{
	struct helper *helper = &loop->helpers[number(strsep(&line, " ")) - 1];
	size_t size = strlen(line);

	if (helper >= &loop->helpers[loop->count])
		errno = 0, die("no such helper");
	if (!strcmp(line, "end")) {
		dismiss(helper);
		answer(loop->out, "done 0\n");
		return;
	}
	line[size] = '\n';
	if (write(helper->to, line, size + 1) != (ssize_t)size + 1 || !take_line(helper->from, line))
		errno = 0, die("a helper ended");
	answer(loop->out, "%s\n", line);
}

static long obey(struct loop *loop, char *line)
{
	char *command = strsep(&line, " ");

	if (!strcmp(command, "read")) {
		long offset = number(strsep(&line, " "));

		preads(offset, number(line));
	} else if (!strcmp(command, "take")) {
		take(line);
	} else if (!strcmp(command, "name")) {
		prctl(PR_SET_NAME, line);
	} else if (!strcmp(command, "comm")) {
		write_comm(line);
	} else if (!strcmp(command, "user")) {
		long uid = number(line);

		if (syscall(SYS_setresuid, uid, uid, uid))
			die("cannot become user %ld", uid);
	} else if (!strcmp(command, "exec")) {
		become(line);
	} else if (loop && (!strcmp(command, "fork") || !strcmp(command, "thread"))) {
		return make_helper(loop, *command == 't');
	} else if (!strcmp(command, "spawn")) {
		char *program = strsep(&line, " ");
		long offset = number(strsep(&line, " "));

		wait_for(start(program, offset, number(line)));
	} else if (!strcmp(command, "storm")) {
		storm(line);
	} else {
		errno = 0, die("no such command: %s", command);
	}
	return 0;
}

static void serve(int in, int out)
{
	struct loop loop = {.in = in, .out = out};
	char line[LINE + 1];

	answer(out, "ready %d\n", thread_id());
	while (take_line(in, line)) {
		if (*line >= '0' && *line <= '9')
			delegate(&loop, line);
		else
			answer(out, "done %ld\n", obey(&loop, line));
	}
	for (int i = 0; i < loop.count; i++)
		dismiss(&loop.helpers[i]);
}

int main(int argc, char **argv)
{
	if (argc < 4)
		usage("actor FILE serve IN OUT | actor FILE do COMMAND…");
	path = argv[1];
	file = open_file(path, O_RDONLY);
	if (!strcmp(argv[2], "serve") && argc == 5) {
		main_in = number(argv[3]);
		main_out = number(argv[4]);
		serve(main_in, main_out);
	} else if (!strcmp(argv[2], "do")) {
		for (int i = 3; i < argc; i++)
			obey(NULL, argv[i]);
	} else {
		usage("actor FILE serve IN OUT | actor FILE do COMMAND…");
	}
	return 0;
}
