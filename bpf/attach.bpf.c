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
	ADOPT_SELF = 0,	 /* find out who FLAK is: before any hook is on */
	ADOPT_ARM = 1,	 /* the first root joins the tree at its next exec */
	ADOPT_ALL = 2,	 /* give traits to all processes, and numbers to the chosen threads */
	ADOPT_COUNT = 3, /* count the processes of the tree, and the chosen threads, that live */
};

u32 adopt_mode = ADOPT_SELF;
u32 roots[2 * FLAK_MAX_CHOICES] = {}; /* processes chosen and excluded by number, in FLAK's pid namespace */
u32 root_count = 0, excluded_root_count = 0;
u32 wanted_tids[2 * FLAK_MAX_CHOICES] = {}; /* threads likewise */
u32 adopted_count = 0;			    /* processes that got a trait, or were counted */
u32 counted_threads = 0;		    /* chosen threads that were counted */
u64 found_roots = 0;			    /* which roots were seen, a bit each */

/* The iterator runs in FLAK's own context. */
static __always_inline void learn_self(void)
{
	struct task_struct *self = current_task();

	own_tgid = tread(self, tgid);
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
	return tread_anew(task, flags) & PF_EXITING;
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
	if ((u32)tread(task, tgid) == own_tgid) {
		/* FLAK does not trace itself and counts what it leaves out; nobody waits for its end. */
		add_traits(tread(task, tgid), more);
		return;
	}
	if (root >= 0)
		found_roots |= 1ULL << (root & 63);
	is_new = give_traits(tread(task, tgid), more);
	if (!threads_alive(task)) /* ended meanwhile, perhaps before its exit hook could see the trait */
		leave_tree(tread(task, tgid));
	if (is_new)
		__sync_fetch_and_add(&adopted_count, 1);
}

SEC("iter/task")
int flak_adopt(struct bpf_iter__task *ctx)
{
	struct task_struct *task = task_of(ctx);

	if (!task)
		return 0;
	if (adopt_mode == ADOPT_SELF) {
		learn_self();
		return 0;
	}
	if (adopt_mode == ADOPT_ARM) {
		if (tread(task, pid) == tread(task, tgid) && root_index(nr_in_our_ns((u64)task), 0, root_count) >= 0)
			armed_tgid = tread(task, tgid);
		return 0;
	}
	if (adopt_mode == ADOPT_COUNT) {
		if (tread(task, pid) == tread(task, tgid) && threads_alive(task) &&
		    traits_of(tread(task, tgid)) & TRAIT_ALIVE)
			__sync_fetch_and_add(&adopted_count, 1);
		if (selects_threads && !is_exiting(task) && is_chosen_thread(tread(task, pid)))
			__sync_fetch_and_add(&counted_threads, 1);
		return 0;
	}
	if (selects_threads && !is_exiting(task)) {
		adopt_thread(nr_in_our_ns((u64)task), tread(task, pid));
		if (is_exiting(task)) /* perhaps before its exit hook could see the number */
			end_thread(tread(task, pid));
	}
	if (tread(task, pid) == tread(task, tgid) &&
	    threads_alive(task)) /* not one that only waits for its parent to notice */
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
	struct task_state *own = state_of(current_task());
	struct task_struct *task = task_of(ctx);
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

#if IS_OLD_KERNEL
/* One mapping of a task. Global, to be verified but once. */
__noinline int send_one_mapping(u64 task, u64 vma, u32 mark)
{
	struct task_state *own = state_of(current_task());

	if (own)
		send_mapping((struct task_struct *)task, own, vma, mark);
	return 0;
}

#define MAPPINGS_AT_ONCE 256

/* Sends mappings from one on, some of a list; returns the next one, 0: the list has ended, or is not one any more. */
__noinline u64 send_some_mappings(u64 task, u64 mm, u64 vma)
{
	u64 i;

	for (i = 0; i < MAPPINGS_AT_ONCE; i++) {
		if (!vma || kaddr(vma, struct vm_area_struct, vm_mm) != mm || kaddr(task, struct task_struct, mm) != mm)
			return 0;
		send_one_mapping(task, vma, FLAK_MARK_ATTACHED);
		vma = kaddr(vma, struct vm_area_struct___rb, vm_next);
	}
	return vma;
}

/*
 * Before "bpf: Introduce task_vma bpf_iter" (3a7b35b899de) no iterator goes over mappings: the list of them is walked
 * without the lock that guards it. Whatever is read of a mapping that went meanwhile was true a moment ago, or is no
 * mapping of the program's and ends the walk, as does an exec, after which all its memory may be somebody else's.
 */
SEC("iter/task")
int flak_vmas(struct bpf_iter__task *ctx)
{
	struct task_struct *task = task_of(ctx);
	u64 i, mm, vma;

	if (!task || !is_target(task) || tread(task, pid) != tread(task, tgid))
		return 0;
	mm = kaddr(task, struct task_struct, mm);
	if (!mm || !bpf_core_field_exists(struct mm_struct___rb, mmap))
		return 0;
	vma = kaddr(mm, struct mm_struct___rb, mmap);
	for (i = 0; i < MAPPINGS_AT_ONCE && vma; i++)
		vma = send_some_mappings((u64)task, mm, vma);
	return 0;
}
#else
SEC("iter/task_vma")
int flak_vmas(struct bpf_iter__task_vma *ctx)
{
	struct task_state *own = state_of(current_task());
	struct task_struct *task = ctx->task;
	struct vm_area_struct *vma = ctx->vma;

	if (task && vma && own && is_target(task))
		send_mapping(task, own, (u64)vma, FLAK_MARK_ATTACHED);
	return 0;
}
#endif

/* Mappings and gaps of a program that has just begun: its own, its interpreter's, its stack. */
#define EXEC_MAPPINGS 64

/*
 * Sends the mapping at an address of the current task, if a file is mapped there. Returns where the next one or the next
 * gap begins, 0: nowhere. Global, so that the verifier does not follow it in each round of the loop.
 */
__noinline u64 send_exec_mapping(u64 mm, u64 addr)
{
	struct task_struct *task = current_task();
	struct task_state *state = state_of(task);
	u64 vma = find_mapping(mm, addr);

	if (vma && state)
		send_mapping(task, state, vma, FLAK_MARK_BY_EXEC);
	return end_of_mapping(mm, addr) + 1;
}

/* What the kernel has mapped for the program that the current task has become: no call tells. */
int send_exec_mappings(void)
{
	u64 i, mm = current_mm(), addr = 0;

	for (i = 0; i < EXEC_MAPPINGS; i++) {
		addr = send_exec_mapping(mm, addr);
		if (!addr)
			break;
	}
	return 0;
}
