// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * Joining and leaving: who is a target already, what have they open and mapped, and which calls have not returned?
 *
 * Iterators, run by user space: flak_adopt until it adds nobody (the fork hook is on already, so nobody slips between),
 * then flak_fds and flak_vmas once; flak_pending when the hooks are off.
 */
#include "calls.bpf.h"
#include "filters.bpf.h"
#include "targets.bpf.h"
#include "vma.bpf.h"

/* What flak_adopt does. */
enum {
	ADOPT_SELF = 0, /* find out who FLAK is: before any hook is on */
	ADOPT_ARM = 1,	/* the first root joins the tree at its next exec */
	ADOPT_ALL = 2,	/* give traits to all processes, and numbers to the chosen threads */
};

u32 adopt_mode = ADOPT_SELF;
u32 roots[2 * FLAK_MAX_CHOICES] = {}; /* processes chosen and excluded by number, in FLAK's pid namespace */
u32 root_count = 0, excluded_root_count = 0;
u32 wanted_tids[2 * FLAK_MAX_CHOICES] = {}; /* threads likewise */
u32 adopted_count = 0;			    /* processes that got a trait */
u64 found_roots = 0;			    /* which roots were seen, a bit each */

/* The iterator runs in FLAK's own context. */
static __always_inline void learn_self(void)
{
	struct task_struct *self = bpf_get_current_task_btf();

	own_tgid = self->tgid;
	own_level = self->thread_pid->level;
	own_pid_ns = kaddr(upid_of((u64)self, own_level), struct upid, ns);
}

/* Which of `count` roots, from `first` on, has that number; −1: none. Global, as the next: to be verified but once. */
__noinline int root_index(u32 nr, u32 first, u32 count)
{
	u32 i;

	for (i = 0; i < FLAK_MAX_CHOICES; i++) {
		if (i >= count)
			break;
		if (nr && roots[(first + i) & (2 * FLAK_MAX_CHOICES - 1)] == nr)
			return i;
	}
	return -1;
}

/* A chosen or excluded thread, by its number for FLAK's user: from now on it is known by the kernel's. */
__noinline int adopt_thread(u32 nr, u32 tid)
{
	u32 i;

	for (i = 0; i < 2 * FLAK_MAX_CHOICES; i++) {
		if (!nr || wanted_tids[i] != nr)
			continue;
		wanted_tids[i] = 0;
		tids[i] = tid;
		if (i < FLAK_MAX_CHOICES)
			__sync_fetch_and_add(&live_threads, 1);
	}
	return 0;
}

/* Its exit hook has run, or is about to. Volatile: asked twice, and meant both times. */
static __always_inline bool is_exiting(struct task_struct *task)
{
	return *(volatile unsigned int *)&task->flags & PF_EXITING;
}

static __always_inline void adopt_process(struct task_struct *task)
{
	u32 nr = nr_in_our_ns((u64)task);
	u32 more = inherited_traits(task->real_parent->tgid) | traits_by_name((u64)task);
	s32 root = root_index(nr, 0, root_count);
	bool is_new;

	if (root_index(nr, FLAK_MAX_CHOICES, excluded_root_count) >= 0)
		more |= TRAIT_SHUT_OUT;
	if (root >= 0)
		more |= TRAIT_IN_TREE;
	if ((u32)task->tgid == own_tgid) {
		/* FLAK does not trace itself and counts what it leaves out; nobody waits for its end. */
		add_traits(task->tgid, more);
		return;
	}
	if (root >= 0)
		found_roots |= 1ULL << (root & 63);
	is_new = give_traits(task->tgid, more);
	if (!task->signal->live.counter) /* ended meanwhile, perhaps before its exit hook could see the trait */
		leave_tree(task->tgid);
	if (is_new)
		__sync_fetch_and_add(&adopted_count, 1);
}

SEC("iter/task")
int flak_adopt(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;

	if (!task)
		return 0;
	if (adopt_mode == ADOPT_SELF) {
		learn_self();
		return 0;
	}
	if (adopt_mode == ADOPT_ARM) {
		if (task->pid == task->tgid && root_index(nr_in_our_ns((u64)task), 0, root_count) >= 0)
			armed_tgid = task->tgid;
		return 0;
	}
	if (selects_threads && !is_exiting(task)) {
		adopt_thread(nr_in_our_ns((u64)task), task->pid);
		if (is_exiting(task)) /* perhaps before its exit hook could see the number */
			end_thread(task->pid);
	}
	if (task->pid == task->tgid &&
	    task->signal->live.counter) /* not one that only waits for its parent to notice */
		adopt_process(task);
	return 0;
}

/*
 * A record of something that was there before us. The target runs meanwhile, so its own state is not touched but for its
 * id: the call is put together in FLAK's own.
 */
static __always_inline struct flak_operands *reserve_attached(struct task_struct *task, struct task_state *own,
							      struct file_ref *ref, u16 op, u64 bytes)
{
	struct task_state *state = state_of(task);
	struct flak_operands *operands;

	/* It takes no time: --min-latency leaves it out. */
	if (!state || is_cut(ref->path_id, false, 0, bytes))
		return NULL;
	own->op = op;
	own->marks = ref->marks | FLAK_MARK_ATTACHED;
	own->file_id = ref->file_id;
	own->path_id = ref->path_id;
	own->fd = -1;
	own->file_offset = FLAK_NONE;
	own->size_req = FLAK_NONE;
	own->enter_ns = bpf_ktime_get_boot_ns();
	operands = reserve_long(task_id_of(task, state), own, 0, own->enter_ns);
	if (operands)
		record_of(operands)->access.latency_ns = FLAK_NONE;
	return operands;
}

SEC("iter/task_file")
int flak_fds(struct bpf_iter__task_file *ctx)
{
	struct task_state *own = state_of(bpf_get_current_task_btf());
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct flak_operands *operands;
	struct flak_access_long *record;
	struct file_ref ref = {};

	if (!task || !file || !own || !is_target(task) || ref_of_file(own, (u64)file, &ref))
		return 0;
	operands = reserve_attached(task, own, &ref, FLAK_OP_OPENAT, FLAK_NONE);
	if (!operands)
		return 0;
	operands->new_fd = ctx->fd;
	operands->open_flags = file->f_flags;
	operands->has = FLAK_HAS_OPEN_FLAGS;
	record = record_of(operands);
	record->access.file_offset = file->f_pos;
	submit_long(operands);
	return 0;
}

#define VM_READ 0x1
#define VM_WRITE 0x2
#define VM_EXEC 0x4
#define VM_SHARED 0x8
#define MAP_SHARED 0x1
#define MAP_PRIVATE 0x2

SEC("iter/task_vma")
int flak_vmas(struct bpf_iter__task_vma *ctx)
{
	struct task_state *own = state_of(bpf_get_current_task_btf());
	struct task_struct *task = ctx->task;
	struct vm_area_struct *vma = ctx->vma;
	struct flak_operands *operands;
	struct flak_access_long *record;
	struct file_ref ref = {};

	if (!task || !vma || !own || !is_target(task) || !vma->vm_file || ref_of_mapped(own, (u64)vma->vm_file, &ref))
		return 0;
	operands = reserve_attached(task, own, &ref, FLAK_OP_MMAP, vma->vm_end - vma->vm_start);
	if (!operands)
		return 0;
	operands->addr = vma->vm_start;
	operands->prot = vma->vm_flags & (VM_READ | VM_WRITE | VM_EXEC); /* PROT_* have the same values */
	operands->map_flags = vma->vm_flags & VM_SHARED ? MAP_SHARED : MAP_PRIVATE;
	operands->has = FLAK_HAS_ADDR | FLAK_HAS_PROT | FLAK_HAS_MAP_FLAGS;
	record = record_of(operands);
	record->access.file_offset = vma->vm_pgoff << page_shift;
	record->access.size_req = vma->vm_end - vma->vm_start;
	submit_long(operands);
	return 0;
}

/* Calls that have not returned: run when the hooks are off, so nothing changes under us. */
SEC("iter/task")
int flak_pending(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct task_state *state;
	struct flak_access *access;
	bool is_ours;
	u64 bytes;

	if (!task)
		return 0;
	state = bpf_task_storage_get(&tasks, task, NULL, 0);
	is_ours = is_target(task);
	if (state && is_ours)
		count_unseen_faults(task, state);
	if (!state || state->nr < 0 || state->op == FLAK_OP_NONE)
		return 0;
	/* As in flak_exit: where tasks are judged at each event, the verdict at the beginning of the call holds. */
	if (!is_ours && !judges_tasks)
		return 0;
	if (state->op >= FLAK_OP_SENDFILE64 &&
	    state->op <= FLAK_OP_FICLONERANGE) { /* one record, of the target if wanted */
		if (state->uses_position)
			state->op++;
		else
			exchange_sides(state);
	}
	/* What a vector asks for is read when the call returns: not known here, so it passes for large enough. */
	bytes = state->op <= FLAK_OP_PWRITEV2 && state->size_req == FLAK_NONE ? FLAK_NONE - 1 : state->size_req;
	if (is_call_cut(state, 0, bpf_ktime_get_boot_ns(), bytes))
		return 0;
	access = reserve_access(task_id_of(task, state), sizeof(*access));
	if (!access)
		return 0;
	fill_call(access, state, 0, bpf_ktime_get_boot_ns());
	access->marks |= FLAK_MARK_UNFINISHED;
	bpf_ringbuf_submit(access, BPF_RB_NO_WAKEUP);
	return 0;
}
