// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * Descriptors: which file was opened, closed, duplicated, and where was its position put?
 *
 * open names its file by what the kernel put behind the new descriptor, at exit; the string the program passed is kept
 * only for a call that failed. The others take theirs at enter: at exit a closed descriptor's is gone.
 */
#include "calls.bpf.h"
#include "filters.bpf.h"

static __always_inline bool is_open(u16 op)
{
	return op >= FLAK_OP_OPEN && op <= FLAK_OP_CREAT;
}

int enter_descriptor(STATE_ARGUMENT)
{
	begin_state();
	struct task_struct *task = current_task();
	struct pt_regs *regs = regs_of(task);
	s32 fd = (s32)ARG1(regs);
	u16 mode = 0;

	if (!state)
		return 0;
	if (is_open(state->op)) {
		bool is_at = state->op == FLAK_OP_OPENAT || state->op == FLAK_OP_OPENAT2;

		if (is_at && fd != AT_FDCWD)
			state->fd = fd;
		state->base_path_id = base_of(task, state, is_at ? fd : AT_FDCWD);
		return 0;
	}
	if (state->op == FLAK_OP_FCNTL && (u32)ARG2(regs) != F_DUPFD && (u32)ARG2(regs) != F_DUPFD_CLOEXEC) {
		state->op = FLAK_OP_NONE;
		return 0;
	}
	if (!take_fd(task, state, fd, &mode))
		state->op = FLAK_OP_NONE;
	return 0;
}

struct open_arguments {
	u64 path; /* user string */
	u32 flags;
	u32 mode;
};

static __always_inline struct open_arguments open_arguments(u16 op, struct pt_regs *regs)
{
	struct open_arguments args = {.path = ARG2(regs)};
	u64 how[2] = {}; /* struct open_how: flags, mode */

	switch (op) {
	case FLAK_OP_OPEN:
		args.path = ARG1(regs);
		args.flags = ARG2(regs);
		args.mode = ARG3(regs);
		break;
	case FLAK_OP_CREAT:
		args.path = ARG1(regs);
		args.flags = 01101; /* O_CREAT | O_WRONLY | O_TRUNC, as creat(2) says */
		args.mode = ARG2(regs);
		break;
	case FLAK_OP_OPENAT:
		args.flags = ARG3(regs);
		args.mode = ARG4(regs);
		break;
	default:
		bpf_probe_read_user(how, sizeof(how), (void *)ARG3(regs));
		args.flags = how[0];
		args.mode = how[1];
	}
	return args;
}

static __always_inline void exit_open(struct task_struct *task, struct task_state *state, struct pt_regs *regs,
				      long ret, u64 now)
{
	struct open_arguments args = open_arguments(state->op, regs);
	struct flak_operands *operands;
	struct file_ref ref = {};
	u32 claim_id = 0;
	u64 file;

	if (ret >= 0) {
		file = file_of_fd(task, ret);
		if (file && ref_of_file(state, file, &ref))
			return; /* a device or FIFO that nobody asked for */
		state->file_id = ref.file_id;
		state->path_id = ref.path_id;
		state->marks |= ref.marks;
	}
	if (!state->path_id)
		claim_id = intern_claim(args.path, state->base_path_id, NULL, IN_PROGRAM);
	if (filters && is_unwanted_path(claim_id)) {
		count(filtered_path);
		return;
	}
	if (is_call_cut(state, ret, now, FLAK_NONE))
		return;

	operands = reserve_long(task_id_of(task, state), state, ret, now);
	if (!operands)
		return;
	operands->new_fd = ret < 0 ? -1 : ret;
	operands->open_flags = args.flags;
	operands->mode = args.mode;
	operands->claim_id = claim_id;
	operands->has = FLAK_HAS_OPEN_FLAGS | (args.flags & 0100 /* O_CREAT */ ? FLAK_HAS_MODE : 0);
	submit_long(operands);
}

int exit_descriptor(STATE_ARGUMENT, long ret, u64 now)
{
	begin_state();
	struct task_struct *task = current_task();
	struct pt_regs *regs = regs_of(task);
	struct flak_operands *operands;
	struct flak_access *access;

	if (!state)
		return 0;
	if (is_open(state->op)) {
		exit_open(task, state, regs, ret, now);
		return 0;
	}
	if (is_call_cut(state, ret, now, FLAK_NONE))
		return 0;
	if (state->op == FLAK_OP_CLOSE) {
		access = reserve_call(task_id_of(task, state), state, ret, now);
		if (access)
			bpf_ringbuf_submit(access, BPF_RB_NO_WAKEUP);
		return 0;
	}
	if (state->op == FLAK_OP_LSEEK) {
		state->size_req = (u32)ARG3(regs); /* whence */
		if (!is_error(ret))
			state->file_offset = ret; /* /proc/PID/mem has positions past 2^63 */
	}
	operands = reserve_long(task_id_of(task, state), state, state->op == FLAK_OP_LSEEK && !is_error(ret) ? 0 : ret,
				now);
	if (!operands)
		return 0;
	if (state->op == FLAK_OP_LSEEK) {
		operands->arg_offset = ARG2(regs);
		operands->has = FLAK_HAS_ARG_OFFSET;
	} else {
		operands->new_fd = ret < 0 ? -1 : ret;
	}
	submit_long(operands);
	return 0;
}
