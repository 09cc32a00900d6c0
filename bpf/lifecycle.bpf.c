// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * Processes: who was made, who became another program, who ended? And hence: who is traced from now on?
 *
 * The scheduler's tracepoints, because they fire in the parent before the child runs, after an exec has succeeded, and
 * for every thread that ends, however it does. Events go to the meta ring, where a flood of accesses can't push them out.
 */
#include "names.bpf.h"

static __always_inline struct flak_process *reserve_process(struct task_struct *task, struct task_state *state, u16 op)
{
	u32 cpu = bpf_get_smp_processor_id() & (FLAK_MAX_CPUS - 1);
	struct flak_counters *mine = &counters[cpu];
	struct flak_process *process;
	u32 task_id = task_id_of(task, state);
	u32 seq;

	seq = __sync_fetch_and_add(&mine->meta_matched, 1);
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

SEC("tp_btf/sched_process_fork")
int BPF_PROG(flak_fork, struct task_struct *parent, struct task_struct *child)
{
	bool is_process = child->pid == child->tgid;
	struct flak_process *process;
	struct task_state *state;

	/* Always cleared: the number may have been a target's before. First, and the parent looked at afterwards, so that an
	 * iterator that adopts the parent right now is not undone.
	 */
	if (is_process)
		swap_bit(targets, child->tgid, false);
	if (!is_target(parent))
		return 0;
	if (is_process && follow_children)
		add_target(child->tgid);
	state = state_of(parent);
	if (!state) {
		lose_process();
		return 0;
	}
	process = reserve_process(parent, state, FLAK_OP_FORK);
	if (!process)
		return 0;
	process->child_pid = child->tgid;
	process->child_tid = child->pid;
	bpf_ringbuf_submit(process, BPF_RB_NO_WAKEUP);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(flak_exec, struct task_struct *task, pid_t old_pid, struct linux_binprm *bprm)
{
	struct flak_process process = {};
	struct flak_counters *mine;
	struct task_state *state;
	struct file_ref ref = {};
	u32 cpu;

	if (armed_tgid && armed_tgid == (u32)task->tgid) {
		armed_tgid = 0;
		add_target(task->tgid);
	}
	if (!is_target(task))
		return 0;
	state = state_of(task);
	if (!state) {
		lose_process();
		return 0;
	}
	/* The new image's stack was filled by get_user_pages: no access of the program's. */
	state->faults_before = task->min_flt + task->maj_flt - state->faults_seen;
	state->nr = -1;
	if (bprm->file)
		ref_of_file(state, (u64)bprm->file, &ref);

	cpu = bpf_get_smp_processor_id() & (FLAK_MAX_CPUS - 1);
	mine = &counters[cpu];
	process.type = FLAK_META_PROCESS;
	process.op = FLAK_OP_EXEC;
	process.cpu = cpu;
	process.ts_ns = bpf_ktime_get_boot_ns();
	process.task_id = task_id_of(task, state);
	process.seq = __sync_fetch_and_add(&mine->meta_matched, 1);
	process.child_pid = old_pid;
	process.file_id = ref.file_id;
	process.path_id = ref.path_id;
	if (send_exec(&process, task->mm->arg_start))
		__sync_fetch_and_add(&mine->lost_meta_full, 1);
	else
		__sync_fetch_and_add(&mine->meta_submitted, 1);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int flak_exit_task(u64 *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct flak_process *process;
	struct task_state *state;
	bool is_last;

	if (!is_target(task))
		return 0;
	/*
	 * Newer kernels say so in a second argument (user space asks BTF). Without it two threads that end together may
	 * both see a count of zero; who then clears the process's bit is the last.
	 */
	is_last = has_group_dead ? (bool)ctx[1] : task->signal->live.counter == 0;
	if (is_last && !count_ended(task->tgid))
		is_last = has_group_dead;
	state = state_of(task);
	if (!state) {
		lose_process();
		return 0;
	}
	count_unseen_faults(task, state);
	process = reserve_process(task, state, FLAK_OP_EXIT);
	if (!process)
		return 0;
	process->exit_code = task->exit_code;
	process->is_last = is_last;
	bpf_ringbuf_submit(process, BPF_RB_NO_WAKEUP);
	return 0;
}
