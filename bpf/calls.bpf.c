// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * System calls: what was asked of which file, at which offset, with which result, in what time?
 *
 * tp_btf/sys_enter and tp_btf/sys_exit, because they are the cheapest hooks that see every call on every kernel and
 * architecture: 147 ns for both when empty, against 357 ns for a pair of tp/syscalls. The read and write family is
 * decoded here, on the hot path; the other calls in the files of their concern.
 *
 * File, path and position are taken at enter, when the descriptor still means what the program meant.
 */
#include "calls.bpf.h"
#include "syscalls.bpf.h"
#include "filters.bpf.h"
#include "targets.bpf.h"

static __always_inline bool uses_offset_argument(u16 op)
{
	return op >= FLAK_OP_PREAD64;
}

static __always_inline bool is_write_op(u16 op)
{
	return !(op & 1); /* flak.h numbers reads odd, writes even */
}

static __always_inline bool is_vector_op(u16 op)
{
	return op == FLAK_OP_READV || op == FLAK_OP_WRITEV || op >= FLAK_OP_PREADV;
}

struct iov_sum {
	u64 vector;
	u64 bytes;
	u32 is_unknown;
	u32 pad;
};

static long add_iov(u32 index, void *context)
{
	struct iov_sum *sum = context;
	u64 iov[2]; /* struct iovec: base, length */

	if (bpf_probe_read_user(iov, sizeof(iov), (void *)(sum->vector + (u64)index * sizeof(iov)))) {
		sum->is_unknown = 1;
		return 1;
	}
	sum->bytes += iov[1];
	return 0;
}

/* Bytes a vector asks for. Read at exit, when the pages are there because the kernel has just read them too. */
__noinline u64 vector_size(u64 vector, u64 segments)
{
	struct iov_sum sum = {.vector = vector};

	if (segments > UIO_MAXIOV)
		return FLAK_NONE;
	repeat_up_to(UIO_MAXIOV, segments, add_iov, &sum);
	return sum.is_unknown ? FLAK_NONE : sum.bytes;
}

/* Somebody else is reading, writing or seeking by the file's position: what it is now is not where this call will start. */
static __noinline int is_position_taken(u64 file)
{
	return kaddr(file, struct file, f_pos_lock) != 0; /* the owner stands first in a mutex */
}

static __always_inline void enter_transfer(struct task_struct *task, struct task_state *state, struct pt_regs *regs)
{
	u16 op = state->op;
	u16 mode = 0;

	if (!take_fd(task, state, (s32)ARG1(regs), &mode)) {
		state->op = FLAK_OP_NONE;
		return;
	}
	state->size_req = is_vector_op(op) ? FLAK_NONE : ARG3(regs);
	if ((mode & S_IFMT) != S_IFREG && (mode & S_IFMT) != S_IFBLK)
		return; /* a stream has no offset, a directory's is a cookie */
	if (uses_offset_argument(op)) {
		state->file_offset = ARG4(regs);
		/* preadv2(2): −1 means the file's own position */
		if (op < FLAK_OP_PREADV2 || (s64)state->file_offset != -1)
			return;
	}
	state->uses_position = true;
	if (is_position_taken(state->file))
		state->marks |= FLAK_MARK_OFFSET_SHARED;
	state->file_offset = kread(kcast(struct file, state->file), f_pos);
}

/* Does the call append, wherever the program said? */
static __always_inline bool is_append(struct task_state *state, struct pt_regs *regs)
{
	u32 flags = kread(kcast(struct file, state->file), f_flags);
	u64 rwf = state->op == FLAK_OP_PWRITEV2 ? ARG6(regs) : 0;

	if (!is_write_op(state->op) || rwf & RWF_NOAPPEND)
		return false;
	return flags & O_APPEND || rwf & RWF_APPEND;
}

static __always_inline u64 file_size(u64 file_addr)
{
	u64 dentry = kaddr(file_addr, struct file, f_path.dentry);
	struct inode *inode = kcast(struct inode, kaddr(dentry, struct dentry, d_inode));

	return kread(inode, i_size);
}

/* The descriptor still holds the file of enter: only then may its position be read again. */
static __always_inline bool still_holds(struct task_struct *task, struct task_state *state)
{
	return file_of_fd(task, state->fd) == state->file;
}

/*
 * The offset of a call that moved bytes. Nobody else touching the position, it is where the position was; if the
 * position at exit is not that plus the bytes, somebody did, and what it is now less the bytes is the best we know.
 */
static __always_inline void settle_offset(struct task_struct *task, struct task_state *state, struct pt_regs *regs,
					  long ret, u64 *arg_offset)
{
	u64 after;

	if (!state->file && ret >= 0) { /* closed at enter, opened by another thread before the kernel looked */
		u16 mode = 0;

		state->marks |= FLAK_MARK_FD_REPLACED;
		take_fd(task, state, state->fd, &mode);
		return;
	}
	if (!still_holds(task, state)) {
		state->marks |= FLAK_MARK_FD_REPLACED;
		if (state->uses_position)
			state->marks |= FLAK_MARK_OFFSET_SHARED;
		return;
	}
	if (state->file_offset == FLAK_NONE)
		return;
	if (is_append(state, regs)) {
		state->marks |= FLAK_MARK_OFFSET_FROM_SIZE;
		if (!state->uses_position)
			*arg_offset = state->file_offset;
		if (ret <= 0) /* nothing was appended anywhere */
			state->file_offset = FLAK_NONE;
		else if (state->uses_position)
			state->file_offset = kread(kcast(struct file, state->file), f_pos) - ret;
		else
			state->file_offset = file_size(state->file) - ret;
		return;
	}
	if (!state->uses_position || ret <= 0)
		return;
	after = kread(kcast(struct file, state->file), f_pos);
	if (after == state->file_offset && !(state->marks & FLAK_MARK_NO_ENTER)) {
		/* A file that does not move its position, as some of procfs, has no size; else somebody moved it back. */
		if (file_size(state->file) >= ret)
			state->marks |= FLAK_MARK_OFFSET_SHARED;
		return;
	}
	if (state->marks & FLAK_MARK_NO_ENTER) {
		state->file_offset = after - ret;
	} else if (after != state->file_offset + ret) {
		state->marks |= FLAK_MARK_OFFSET_SHARED;
		if (after >= ret)
			state->file_offset = after - ret;
	}
}

static __always_inline void exit_transfer(struct task_struct *task, struct task_state *state, struct pt_regs *regs,
					  long ret, u64 now)
{
	u64 arg_offset = FLAK_NONE;
	struct flak_access *access;

	settle_offset(task, state, regs, ret, &arg_offset);
	if (is_vector_op(state->op)) {
		state->size_req = vector_size(ARG2(regs), ARG3(regs));
		if (ret > 0 && state->size_req < ret)
			state->size_req = FLAK_NONE; /* the vector was changed meanwhile, perhaps by the read itself */
	}
	if (is_call_cut(state, ret, now, ret < 0 ? state->size_req : ret))
		return;
	if (arg_offset != FLAK_NONE) {
		struct flak_operands *operands = reserve_long(task_id_of(task, state), state, ret, now);

		if (!operands)
			return;
		operands->arg_offset = arg_offset;
		operands->has = FLAK_HAS_ARG_OFFSET;
		submit_long(operands);
		return;
	}
	access = reserve_call(task_id_of(task, state), state, ret, now);
	if (access)
		bpf_ringbuf_submit(access, BPF_RB_NO_WAKEUP);
}

/* Starts a call: what it is, on which file, from where. */
static __always_inline void enter_call(struct task_struct *task, struct task_state *state, struct pt_regs *regs, u16 op)
{
	state->op = op;
	state->marks = 0;
	state->file = 0;
	state->file_id = 0;
	state->path_id = 0;
	state->fd = -1;
	state->uses_position = false;
	state->base_path_id = 0;
	state->file_offset = FLAK_NONE;
	state->size_req = FLAK_NONE;
	if (op <= FLAK_OP_PWRITEV2)
		enter_transfer(task, state, regs);
	else if (op <= FLAK_OP_LSEEK)
		enter_descriptor(hand_over(state));
	else if (op <= FLAK_OP_MSYNC)
		enter_mapping(hand_over(state));
	else if (op <= FLAK_OP_FICLONE)
		enter_copy(hand_over(state));
	else
		enter_metadata(hand_over(state));
}

/* A call whose beginning was not seen, put together at its end. Off the hot path, hence a function of its own. */
__noinline int enter_late(STATE_ARGUMENT, long nr, u64 now)
{
	begin_state();
	struct task_struct *task = current_task();
	u16 op = op_of_nr[nr & (FLAK_MAX_SYSCALLS - 1)];

	if (!state)
		return 0;
	enter_call(task, state, regs_of(task), op);
	state->enter_ns = now;
	state->marks |= FLAK_MARK_NO_ENTER;
	return 0;
}

/* Calls that FLAK does not decode but will not pass over in silence. */
static __always_inline void count_undecoded(u16 op)
{
	if (op == FLAK_NR_IO_URING && !traces_io_uring)
		count(not_decoded_io_uring);
	else if (op == FLAK_NR_AIO && !traces_aio)
		count(not_decoded_aio);
}

/* Names may differ from now on, of everybody's files: known paths are looked at again. */
static __always_inline void note_renames(struct task_struct *task, u16 op, long ret)
{
	bool is_rename = op == FLAK_NR_RENAMES || (op >= FLAK_OP_RENAME && op <= FLAK_OP_RENAMEAT2);

	if (!ret && (is_rename || (op == FLAK_NR_COMPAT_RENAMES && is_compat(task))))
		__sync_fetch_and_add(&rename_gen, 1);
}

static __always_inline bool is_decoded(long nr)
{
	u16 op = op_of_nr[nr & (FLAK_MAX_SYSCALLS - 1)];

	return (u64)nr < FLAK_MAX_SYSCALLS && op && op < FLAK_NOT_DECODED;
}

/*
 * Is a call that returns to be recorded? Where tasks are judged at each event, the verdict at its beginning holds: its task
 * may have moved to another cgroup meanwhile. One that moved in meanwhile is recorded without a beginning.
 */
static __always_inline bool is_call_of_ours(struct task_struct *task, long nr)
{
	if (judges_tasks) {
		struct task_state *state = known_state(task);

		if (state && state->nr == nr)
			return true;
	}
	return is_target(task);
}

SEC("tp_btf/sys_enter")
int BPF_PROG(flak_enter, struct pt_regs *regs, long nr)
{
	struct task_struct *task = current_task();
	struct task_state *state;
	u16 op;

	if (!is_target(task))
		return 0;
	regs = argument_of(ctx, 0, regs);
	op = op_of_nr[nr & (FLAK_MAX_SYSCALLS - 1)];
	if (!op || (u64)nr >= FLAK_MAX_SYSCALLS || (op >= FLAK_NOT_DECODED && op != FLAK_NR_AIO) || is_compat(task))
		return 0;
	if (op == FLAK_NR_AIO && !TRACES_AIO)
		return 0;
	state = state_of(task);
	if (!state)
		return 0; /* counted at exit, where the access would have been sent */
	if (op == FLAK_NR_AIO) {
		if (TRACES_AIO) /* the compiler is to know */
			enter_aio(state, nr);
		return 0;
	}
	state->nr = -1; /* whoever looks on sees all of the call or none of it */
	enter_call(task, state, regs, op);
	state->has_entered = true;
	state->enter_ns = bpf_ktime_get_boot_ns();
	barrier();
	state->nr = nr;
	return 0;
}

/* A call of FLAK itself. Not inlined: the stack of flak_exit() is scarce. */
static __noinline int count_own_call(long nr)
{
	if (is_decoded(nr) && is_covered(current_task()))
		count(excluded_self);
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(flak_exit, struct pt_regs *regs, long ret)
{
	long nr = syscall_nr(argument_of(ctx, 0, regs));
	struct task_struct *task;
	struct task_state *state;
	u64 now;
	u16 op;

	if ((u64)nr >= FLAK_MAX_SYSCALLS)
		return 0; /* −1: sigreturn and execve leave no number */
	op = op_of_nr[nr & (FLAK_MAX_SYSCALLS - 1)];
	task = current_task();
	if (op >= FLAK_OP_RENAME)
		note_renames(task, op, ret);
	if ((u32)tread(task, tgid) == own_tgid) {
		count_own_call(nr);
		return 0;
	}
	if (!is_call_of_ours(task, nr))
		return 0;
	if (is_compat(task)) {
		count(not_decoded_compat32);
		return 0;
	}
	if (!op)
		return 0;
	if (op >= FLAK_NOT_DECODED) {
		count_undecoded(op);
		if (TRACES_AIO && op == FLAK_NR_AIO)
			exit_aio(state_of(task), ret);
		else if (TRACES_AIO && op == FLAK_NR_AIO_EVENTS)
			exit_aio_events(0, ret);
		return 0;
	}
	state = state_of(task);
	if (!state) {
		count(lost_state_full);
		return 0;
	}
	regs = argument_of(ctx, 0, regs);
	now = bpf_ktime_get_boot_ns();
	if (state->nr != nr) {
		if (is_stopping)
			return 0; /* it began when the enter hook was off already */
		enter_late(hand_over(state), nr, now);
		/* The task's calls were seen to begin before: this one never ran (seccomp), and a number is no result. */
		if (state->has_entered && ret > 0 && !judges_tasks)
			state->marks |= FLAK_MARK_RESULT_UNKNOWN;
	} else if (is_stopping && exchange_if(&state->nr, (s32)nr, -1) != (s32)nr) {
		return 0; /* recorded as unfinished meanwhile */
	}
	if (state->op == FLAK_OP_NONE)
		; /* of no interest */
	else if (op <= FLAK_OP_PWRITEV2)
		exit_transfer(task, state, regs, ret, now);
	else if (op <= FLAK_OP_LSEEK)
		exit_descriptor(hand_over(state), ret, now);
	else if (op <= FLAK_OP_MSYNC)
		exit_mapping(hand_over(state), ret, now);
	else if (op <= FLAK_OP_FICLONE)
		exit_copy(hand_over(state), ret, now);
	else if (!name_metadata(hand_over(state), ret))
		exit_metadata(hand_over(state), ret, now);
	state->nr = -1;
	return 0;
}
