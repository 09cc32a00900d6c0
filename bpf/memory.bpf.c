// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * Mappings: which part of which file was mapped, moved, unmapped? Anonymous memory is not a file and passes unrecorded.
 *
 * munmap, mremap, madvise and msync name a file through the mapping that holds their first address, taken at enter; a range over several
 * mappings is recorded as its first.
 */
#include "calls.bpf.h"
#include "filters.bpf.h"
#include "vma.bpf.h"

/* Takes file and ids of the mapping at an address into the state. */
static __always_inline bool take_mapping(struct task_state *state, u64 addr)
{
	u64 vma = find_mapping(current_mm(), addr);
	struct file_ref ref = {};
	u64 file;

	if (!vma)
		return false;
	file = kaddr(vma, struct vm_area_struct, vm_file);
	if (!file || ref_of_mapped(state, file, &ref))
		return false;
	state->file_id = ref.file_id;
	state->path_id = ref.path_id;
	state->marks |= ref.marks;
	state->file_offset = offset_in_mapping(vma, addr);
	return true;
}

int enter_mapping(STATE_ARGUMENT)
{
	begin_state();
	struct task_struct *task = current_task();
	struct pt_regs *regs = regs_of(task);
	u16 mode = 0;
	bool is_wanted;

	if (!state)
		return 0;
	if (state->op == FLAK_OP_MMAP) {
		is_wanted = !(ARG4(regs) & MAP_ANONYMOUS) && take_fd(task, state, (s32)ARG5(regs), &mode);
		state->file_offset = ARG6(regs);
		state->size_req = ARG2(regs);
	} else {
		is_wanted = take_mapping(state, ARG1(regs));
		state->size_req = state->op == FLAK_OP_MREMAP ? ARG3(regs) : ARG2(regs); /* the others: length */
	}
	if (!is_wanted)
		state->op = FLAK_OP_NONE;
	return 0;
}

int exit_mapping(STATE_ARGUMENT, long ret, u64 now)
{
	begin_state();
	struct task_struct *task = current_task();
	struct pt_regs *regs = regs_of(task);
	struct flak_operands *operands;

	if (!state || is_call_cut(state, ret, now, state->size_req))
		return 0;
	operands = reserve_long(task_id_of(task, state), state, is_error(ret) ? ret : 0, now);
	if (!operands)
		return 0;
	if (state->op == FLAK_OP_MMAP) {
		operands->prot = ARG3(regs);
		operands->map_flags = ARG4(regs);
		operands->has = FLAK_HAS_PROT | FLAK_HAS_MAP_FLAGS;
	} else if (state->op == FLAK_OP_MREMAP) {
		operands->old_addr = ARG1(regs);
		operands->map_flags = ARG4(regs);
		operands->has = FLAK_HAS_MAP_FLAGS;
	}
	if (state->op == FLAK_OP_MADVISE || state->op == FLAK_OP_MSYNC) {
		operands->map_flags = ARG3(regs);
		operands->has = FLAK_HAS_FLAGS;
	}
	if (state->op != FLAK_OP_MMAP && state->op != FLAK_OP_MREMAP)
		operands->addr = ARG1(regs);
	else if (!is_error(ret))
		operands->addr = ret;
	if (operands->addr)
		operands->has |= FLAK_HAS_ADDR;
	submit_long(operands);
	return 0;
}
