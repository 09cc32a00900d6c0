// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * Joining and leaving: who is a target already, what have they open and mapped, and which calls have not returned?
 *
 * Iterators, run by user space: flak_adopt until it adds nobody (the fork hook is on already, so nobody slips between),
 * then flak_fds and flak_vmas once; flak_pending when the hooks are off.
 */
#include "names.bpf.h"
#include "vma.bpf.h"

#define MAX_ROOTS 64
#define MAX_PID_LEVELS 32

const volatile u32 self_pid_ns = 0; /* inode number of FLAK's pid namespace: the numbers in `roots` are of that */

u32 roots[MAX_ROOTS] = {}; /* processes chosen by number */
u32 root_count = 0;
u32 arm_only = 0;      /* roots become targets at their next exec */
u32 adopted_count = 0; /* targets added by flak_adopt */
u32 found_roots = 0;   /* how many roots were seen */

/* The number of a task in FLAK's pid namespace, 0 when it has none there. */
static __always_inline u32 nr_in_our_ns(struct task_struct *task)
{
	struct pid *pid = task->thread_pid;
	u64 at;
	u32 i;

	if (!pid)
		return 0;
	at = (u64)pid + bpf_core_field_offset(struct pid, numbers);
	for (i = 0; i < MAX_PID_LEVELS; i++) {
		struct pid_namespace *ns;

		if (i > pid->level)
			break;
		ns = kcast(struct pid_namespace, load_u64(at + bpf_core_field_offset(struct upid, ns)));
		if (kread(ns, ns.inum) == self_pid_ns)
			return (u32)load_u64(at);
		at += bpf_core_type_size(struct upid);
	}
	return 0;
}

static __always_inline bool is_root(u32 nr)
{
	u32 i;

	for (i = 0; i < MAX_ROOTS; i++) {
		if (i >= root_count)
			break;
		if (nr && roots[i] == nr)
			return true;
	}
	return false;
}

SEC("iter/task")
int flak_adopt(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	bool is_chosen;
	u32 nr;

	if (!task || task->pid != task->tgid || is_target(task))
		return 0;
	if (!task->signal->live.counter) /* ended, and only waits for its parent to notice */
		return 0;
	nr = nr_in_our_ns(task);
	is_chosen = is_root(nr);
	if (is_chosen && arm_only) {
		armed_tgid = task->tgid;
		__sync_fetch_and_add(&found_roots, 1);
		return 0;
	}
	if (!is_chosen && !(follow_children && is_target_tgid(task->real_parent->tgid)))
		return 0;
	if (nr == self_tgid) { /* FLAK does not trace itself, it counts what it leaves out */
		excluded_tgid = task->tgid;
		return 0;
	}
	add_target(task->tgid);
	if (!task->signal->live.counter) /* ended meanwhile, perhaps before its exit hook could see the bit */
		count_ended(task->tgid);
	__sync_fetch_and_add(&adopted_count, 1);
	if (is_chosen)
		__sync_fetch_and_add(&found_roots, 1);
	return 0;
}

/*
 * A record of something that was there before us. The target runs meanwhile, so its own state is not touched but for its
 * id: the call is put together in FLAK's own.
 */
static __always_inline struct flak_operands *reserve_attached(struct task_struct *task, struct task_state *own,
							      struct file_ref *ref, u16 op)
{
	struct task_state *state = state_of(task);
	struct flak_operands *operands;

	if (!state)
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
	operands = reserve_attached(task, own, &ref, FLAK_OP_OPENAT);
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
	operands = reserve_attached(task, own, &ref, FLAK_OP_MMAP);
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

	if (!task || !is_target(task))
		return 0;
	state = bpf_task_storage_get(&tasks, task, NULL, 0);
	if (state)
		count_unseen_faults(task, state);
	if (!state || state->nr < 0 || state->op == FLAK_OP_NONE)
		return 0;
	access = reserve_access(task_id_of(task, state), sizeof(*access));
	if (!access)
		return 0;
	fill_call(access, state, 0, bpf_ktime_get_boot_ns());
	access->marks |= FLAK_MARK_UNFINISHED;
	bpf_ringbuf_submit(access, BPF_RB_NO_WAKEUP);
	return 0;
}
