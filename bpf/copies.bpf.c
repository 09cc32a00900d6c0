// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * Copies that never pass through the program: which bytes of which file went where in which other?
 *
 * Each is told as two accesses with one call_id: a read of the source and a write to the target. A side that is a pipe or
 * a socket is left out unless those are wanted. Where a call takes the offset from the program's memory, it has moved it
 * on by what it copied when it returns; otherwise the file's own position is taken as for read and write.
 */
#include "calls.bpf.h"
#include "filters.bpf.h"

#define FICLONE 0x40049409
#define FICLONERANGE 0x4020940d

struct user_clone_range { /* struct file_clone_range, include/uapi/linux/fs.h */
	s64 src_fd;
	u64 src_offset;
	u64 src_length;
	u64 dest_offset;
};

/* Where a call has its descriptors and the addresses of its offsets. */
struct copy_arguments {
	s32 from;
	s32 to;
	u64 from_offset; /* user address, 0: the file's own position */
	u64 to_offset;
	u64 size;
};

static __always_inline void read_arguments(struct copy_arguments *args, u16 op, struct pt_regs *regs)
{
	if (op == FLAK_OP_SENDFILE64) {
		args->to = (s32)ARG1(regs);
		args->from = (s32)ARG2(regs);
		args->from_offset = ARG3(regs);
		args->to_offset = 0;
		args->size = ARG4(regs);
		return;
	}
	args->from = (s32)ARG1(regs);
	args->from_offset = ARG2(regs);
	args->to = (s32)ARG3(regs);
	args->to_offset = ARG4(regs);
	args->size = ARG5(regs);
}

static __always_inline u64 position_of(u64 file)
{
	return file ? kread(kcast(struct file, file), f_pos) : FLAK_NONE;
}

static __always_inline bool has_offset(u16 mode)
{
	return (mode & S_IFMT) == S_IFREG || (mode & S_IFMT) == S_IFBLK;
}

/* Takes both files into the state: the target as the call's own, the source beside it. */
static __always_inline void take_sides(struct task_struct *task, struct task_state *state, s32 from, s32 to)
{
	struct copy_side *source = &state->source;
	u16 mode = 0;

	source->is_wanted = take_fd(task, state, from, &mode);
	source->file = state->file;
	source->file_id = state->file_id;
	source->path_id = state->path_id;
	source->marks = state->marks;
	source->fd = from;
	source->uses_position = has_offset(mode);
	source->file_offset = source->uses_position ? position_of(source->file) : FLAK_NONE;

	state->file_id = 0;
	state->path_id = 0;
	state->marks = 0;
	mode = 0;
	state->uses_position = take_fd(task, state, to, &mode);
	if (!state->uses_position) { /* not wanted; the source may be */
		if (!source->is_wanted)
			state->op = FLAK_OP_NONE;
		state->fd = -1;
		state->file = 0;
		return;
	}
	state->file_offset = has_offset(mode) ? position_of(state->file) : FLAK_NONE;
}

int enter_copy(STATE_ARGUMENT)
{
	begin_state();
	struct task_struct *task = current_task();
	struct pt_regs *regs = regs_of(task);
	struct copy_arguments args = {};
	struct user_clone_range *range;

	if (!state)
		return 0;
	range = (void *)state->copied;
	if (state->op != FLAK_OP_FICLONE) {
		read_arguments(&args, state->op, regs);
		take_sides(task, state, args.from, args.to);
		state->size_req = args.size;
		return 0;
	}
	if ((u32)ARG2(regs) == FICLONE) {
		take_sides(task, state, (s32)ARG3(regs), (s32)ARG1(regs));
		state->file_offset = 0;
		state->source.file_offset = 0;
	} else if ((u32)ARG2(regs) == FICLONERANGE) {
		state->op = FLAK_OP_FICLONERANGE;
		bpf_probe_read_user(range, sizeof(*range), (void *)ARG3(regs));
		take_sides(task, state, (s32)range->src_fd, (s32)ARG1(regs));
		if (state->op == FLAK_OP_NONE)
			return 0;
		state->file_offset = range->dest_offset;
		state->source.file_offset = range->src_offset;
		state->size_req = range->src_length;
	} else {
		state->op = FLAK_OP_NONE; /* another ioctl */
	}
	return 0;
}

/*
 * Where a side began: what the program's offset says now less what was moved; else the position, if nobody disturbed it.
 * None of these calls writes to a file opened with O_APPEND.
 */
static __always_inline u64 settle_side(u64 file, u64 before, u64 user_offset, long ret, u32 *marks)
{
	u64 moved = ret > 0 ? ret : 0;
	u64 after;

	if (before == FLAK_NONE)
		return before;
	if (user_offset) {
		if (bpf_probe_read_user(&after, sizeof(after), (void *)user_offset))
			return FLAK_NONE;
		return after - moved;
	}
	if (!moved)
		return before;
	after = position_of(file);
	if (after != before + moved) {
		*marks |= FLAK_MARK_OFFSET_SHARED;
		return after >= moved ? after - moved : before;
	}
	return before;
}

/* One of the two records, of what the state holds now. */
static __always_inline void send_side(struct task_struct *task, struct task_state *state, long ret, u64 now,
				      u32 call_id)
{
	struct flak_operands *operands;

	if (is_call_cut(state, ret, now, ret < 0 ? state->size_req : ret))
		return;
	operands = reserve_long(task_id_of(task, state), state, ret, now);
	if (!operands)
		return;
	operands->call_id = call_id;
	submit_long(operands);
}

int exit_copy(STATE_ARGUMENT, long ret, u64 now)
{
	begin_state();
	struct task_struct *task = current_task();
	struct copy_arguments args = {};
	struct copy_side *source;
	bool is_target_wanted, is_clone;
	u32 call_id;
	u16 op;

	if (!state)
		return 0;
	source = &state->source;
	op = state->op;
	is_target_wanted = state->uses_position;
	is_clone = op == FLAK_OP_FICLONE || op == FLAK_OP_FICLONERANGE;
	if (ret > 0x7fffffff) { /* no file system moves more than MAX_RW_COUNT at once today */
		state->marks |= FLAK_MARK_RESULT_UNKNOWN;
		source->marks |= FLAK_MARK_RESULT_UNKNOWN;
	}
	if (!is_clone) {
		read_arguments(&args, op, regs_of(task));
		if (file_of_fd(task, args.to) != state->file && is_target_wanted)
			state->marks |= FLAK_MARK_FD_REPLACED;
		else if (is_target_wanted)
			state->file_offset =
				settle_side(state->file, state->file_offset, args.to_offset, ret, &state->marks);
		if (file_of_fd(task, args.from) != source->file)
			source->marks |= FLAK_MARK_FD_REPLACED;
		else
			source->file_offset =
				settle_side(source->file, source->file_offset, args.from_offset, ret, &source->marks);
	}
	source->marks |= state->marks & FLAK_MARK_NO_ENTER;
	call_id = next_id(&next_call_id);
	if (source->is_wanted) {
		exchange_sides(state);
		send_side(task, state, ret, now, call_id);
		exchange_sides(state);
	}
	if (is_target_wanted) {
		state->op = op + 1;
		send_side(task, state, ret, now, call_id);
	}
	return 0;
}
