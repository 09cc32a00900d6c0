// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * Joining: who is a target already, what have they open and mapped?
 *
 * Iterators, run by user space: flak_adopt until it adds nobody (the fork hook is on already, so nobody slips between),
 * then flak_fds and flak_vmas once.
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
	own_level = kread(kcast(struct pid, kaddr(self, struct task_struct, thread_pid)), level);
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
	u32 more =
		inherited_traits(kread(kcast(struct task_struct, kaddr(task, struct task_struct, real_parent)), tgid)) |
		traits_by_name((u64)task);
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
	if (!threads_alive(task)) /* ended meanwhile, perhaps before its exit hook could see the trait */
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
	if (task->pid == task->tgid && threads_alive(task)) /* not one that only waits for its parent to notice */
		adopt_process(task);
	return 0;
}

/*
 * A record of something that was there before us. The target runs meanwhile, so its own state is not touched but for its
 * id: the call is put together in FLAK's own.
 */
static __always_inline struct flak_operands *reserve_attached(struct task_struct *task, struct task_state *own,
							      struct file_ref *ref, u16 op, u64 bytes, u32 mark)
{
	struct task_state *state = state_of(task);
	struct flak_operands *operands;
	u32 task_id;

	/* It takes no time: --min-latency leaves it out. */
	if (!state || is_cut(ref->path_id, false, 0, bytes))
		return NULL;
	own->op = op;
	own->marks = ref->marks | mark;
	own->file_id = ref->file_id;
	own->path_id = ref->path_id;
	own->fd = -1;
	own->file_offset = FLAK_NONE;
	own->size_req = FLAK_NONE;
	own->enter_ns = bpf_ktime_get_boot_ns();
	task_id = task_id_of(task, state);
	own->process = state->process;
	operands = reserve_long(task_id, own, 0, own->enter_ns);
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
	operands = reserve_attached(task, own, &ref, FLAK_OP_OPENAT, FLAK_NONE, FLAK_MARK_ATTACHED);
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

/* A mapping that no call made while FLAK looked on. */
static __always_inline void send_mapping(struct task_struct *task, struct task_state *own, u64 vma_addr, u32 mark)
{
	struct vm_area_struct *vma = kcast(struct vm_area_struct, vma_addr);
	u64 start = kread(vma, vm_start), size = kread(vma, vm_end) - start;
	u64 file = kaddr(vma_addr, struct vm_area_struct, vm_file);
	u64 flags = kread(vma, vm_flags);
	struct flak_operands *operands;
	struct flak_access_long *record;
	struct file_ref ref = {};

	if (!file || ref_of_mapped(own, file, &ref))
		return;
	operands = reserve_attached(task, own, &ref, FLAK_OP_MMAP, size, mark);
	if (!operands)
		return;
	operands->addr = start;
	operands->prot = flags & (VM_READ | VM_WRITE | VM_EXEC); /* PROT_* have the same values */
	operands->map_flags = flags & VM_SHARED ? MAP_SHARED : MAP_PRIVATE;
	operands->has = FLAK_HAS_ADDR | FLAK_HAS_PROT | FLAK_HAS_MAP_FLAGS;
	record = record_of(operands);
	record->access.file_offset = kread(vma, vm_pgoff) << page_shift;
	record->access.size_req = size;
	submit_long(operands);
}

SEC("iter/task_vma")
int flak_vmas(struct bpf_iter__task_vma *ctx)
{
	struct task_state *own = state_of(bpf_get_current_task_btf());
	struct task_struct *task = ctx->task;
	struct vm_area_struct *vma = ctx->vma;

	if (task && vma && own && is_target(task))
		send_mapping(task, own, (u64)vma, FLAK_MARK_ATTACHED);
	return 0;
}

/* Mappings and gaps of a program that has just begun: its own, its interpreter's, its stack. */
#define EXEC_MAPPINGS 64

struct exec_walk {
	u64 mm;
	u64 addr;
};

static long send_exec_mapping(u32 index, void *context)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_state *state = state_of(task);
	struct exec_walk *walk = context;
	u64 last = 0, vma = look_up_mapping(walk->mm, walk->addr, &last);

	if (vma && state)
		send_mapping(task, state, vma, FLAK_MARK_BY_EXEC);
	walk->addr = last + 1;
	return !walk->addr;
}

/* What the kernel has mapped for the program that the current task has become: no call tells. */
int send_exec_mappings(void)
{
	struct exec_walk walk = {.mm = current_mm()};

	bpf_loop(EXEC_MAPPINGS, send_exec_mapping, &walk, 0);
	return 0;
}
