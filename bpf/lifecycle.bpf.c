// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * Processes: who was made, who became another program, who ended? And hence: who is traced from now on?
 *
 * The scheduler's tracepoints, because they fire in the parent before the child runs, after an exec has succeeded, and
 * for every thread that ends, however it does. Events go to the meta ring, where a flood of accesses can't push them out.
 */
#include "names.bpf.h"
#include "targets.bpf.h"

static __always_inline struct flak_process *reserve_process(struct task_struct *task, struct task_state *state, u16 op)
{
	u32 cpu = bpf_get_smp_processor_id() & (FLAK_MAX_CPUS - 1);
	struct flak_counters *mine = &counters[cpu];
	struct flak_process *process;
	u32 task_id = task_id_of(task, state);
	u32 seq;

	seq = take_number(&mine->meta_matched);
	process = bpf_ringbuf_reserve(&meta, sizeof(*process), 0);
	if (!process) {
		__sync_fetch_and_add(&mine->lost_meta_full, 1);
		return NULL;
	}
	__sync_fetch_and_add(&mine->meta_submitted, 1);
	__builtin_memset(process, 0, sizeof(*process));
	process->type = FLAK_META_PROCESS;
	process->size = sizeof(*process);
	process->op = op;
	process->cpu = cpu;
	process->ts_ns = bpf_ktime_get_boot_ns();
	process->task_id = task_id;
	process->seq = seq;
	return process;
}

/* A process event without a task state to number it in: lost, and a number is missing. */
static __always_inline void lose_process(void)
{
	count(meta_matched);
	count(lost_meta_full);
}

/* The traits of a process that was just made. */
static __always_inline void begin_process(struct task_struct *parent, struct task_struct *child)
{
	/*
	 * First all are taken away: the number may have been another's before. Then the parent is looked at, so that an
	 * iterator that adopts the parent right now is not undone. An iterator can have met the child already, which is
	 * listed before this hook: then the child is counted, and must not be counted again.
	 */
	if (drop_traits(tread(child, tgid), 0xff) & TRAIT_ALIVE)
		__sync_fetch_and_add(&live_processes, -1);
	give_traits(tread(child, tgid), inherited_traits(tread(parent, tgid)) | traits_by_name((u64)child));
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(flak_fork, struct task_struct *parent, struct task_struct *child)
{
	struct flak_process *process;
	struct task_state *state;

	parent = argument_of(ctx, 0, parent);
	child = argument_of(ctx, 1, child);
	forget_state(child);
	if (tread(child, pid) == tread(child, tgid))
		begin_process(parent, child);
	if (!is_target(parent))
		return 0;
	state = state_of(parent);
	if (!state) {
		lose_process();
		return 0;
	}
	process = reserve_process(parent, state, FLAK_OP_FORK);
	if (!process)
		return 0;
	process->child_pid = nr_in_our_ns(kaddr(child, struct task_struct, group_leader));
	process->child_tid = nr_in_our_ns((u64)child);
	bpf_ringbuf_submit(process, BPF_RB_NO_WAKEUP);
	return 0;
}

/* The traits of a process that became another program: the old name counts no more. */
static __always_inline void become_program(struct task_struct *task)
{
	u32 named = traits_by_name((u64)task);

	if (armed_tgid && armed_tgid == (u32)tread(task, tgid)) {
		join_tree(tread(task, tgid)); /* first: user space ends the trace where nobody is armed or alive */
		armed_tgid = 0;
	}
	if (!judges_names)
		return;
	drop_traits(tread(task, tgid), (TRAIT_NAMED | TRAIT_EXCLUDED_NAME) & ~named);
	add_traits(tread(task, tgid), named);
}

/*
 * The thread's number before the exec, in FLAK's pid namespace. Another than the first has lost its own by now; what is
 * left of it, the kernel's number, is the same only in the initial namespace.
 */
static __always_inline u32 nr_before_exec(struct task_struct *task, pid_t old_pid)
{
	if (old_pid == tread(task, tgid))
		return nr_in_our_ns((u64)task);
	return own_level ? 0 : old_pid;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(flak_exec, struct task_struct *task, pid_t old_pid, struct linux_binprm *bprm)
{
	struct flak_process process = {};
	struct flak_counters *mine;
	struct task_state *state;
	struct file_ref ref = {};
	bool was_target;
	u64 file;
	u32 cpu;

	task = argument_of(ctx, 0, task);
	was_target = is_target(task);
	if (selects_threads && old_pid != tread(task, pid))
		rename_thread(old_pid, tread(task, pid));
	become_program(task);
	/* The exec by which a process ceases to be traced is still told. */
	if (!is_target(task) && !was_target)
		return 0;
	state = state_of(task);
	if (!state) {
		lose_process();
		return 0;
	}
	/* The new image's stack was filled by get_user_pages: no access of the program's. */
	state->faults_before = tread(task, min_flt) + tread(task, maj_flt) - state->faults_seen;
	state->nr = -1;
	state->has_entered = false; /* it may cease to be traced, and come back amid a call */
	file = kaddr(bprm, struct linux_binprm, file);
	if (file)
		ref_of_file(state, file, &ref);

	cpu = bpf_get_smp_processor_id() & (FLAK_MAX_CPUS - 1);
	mine = &counters[cpu];
	process.type = FLAK_META_PROCESS;
	process.op = FLAK_OP_EXEC;
	process.cpu = cpu;
	process.ts_ns = bpf_ktime_get_boot_ns();
	process.task_id = task_id_of(task, state);
	process.seq = take_number(&mine->meta_matched);
	process.child_pid = nr_before_exec(task, old_pid);
	process.file_id = ref.file_id;
	process.path_id = ref.path_id;
	if (send_exec(&process, kread(kcast(struct mm_struct, kaddr(task, struct task_struct, mm)), arg_start)))
		__sync_fetch_and_add(&mine->lost_meta_full, 1);
	else
		__sync_fetch_and_add(&mine->meta_submitted, 1);
	if (traces_mappings && is_target(task))
		send_exec_mappings();
	return 0;
}

SEC("tp_btf/sched_process_exit")
int flak_exit_task(u64 *ctx)
{
	struct task_struct *task = current_task();
	struct flak_process *process;
	struct task_state *state;
	bool is_last, was_target;

	/*
	 * Newer kernels say so in a second argument (user space asks BTF). Without it two threads that end together may
	 * both see a count of zero; the first that says so is the last.
	 */
	is_last = has_group_dead ? (bool)ctx[1] : !threads_alive(task);
	was_target = is_target(task);
	if (selects_threads)
		end_thread(tread(task, pid));
	if (is_last) {
		if (!has_group_dead)
			is_last = !(add_traits(tread(task, tgid), TRAIT_ENDED) & TRAIT_ENDED);
		leave_tree(tread(task, tgid));
	}
	if (!was_target) {
		forget_state(task);
		return 0;
	}
	state = state_of(task);
	if (!state) {
		lose_process();
		return 0;
	}
	count_unseen_faults(task, state);
	process = reserve_process(task, state, FLAK_OP_EXIT);
	forget_state(task);
	if (!process)
		return 0;
	process->exit_code = tread(task, exit_code);
	process->is_last = is_last;
	bpf_ringbuf_submit(process, BPF_RB_NO_WAKEUP);
	return 0;
}
