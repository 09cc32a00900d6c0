// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * Page faults: which page of which mapped file was touched, by reading or writing, and how long did the task wait?
 *
 * One record for each completed handling, by mm_account_fault()'s rule (mm/memory.c): retries are not counted, a fault
 * that ended in an error is not, major is VM_FAULT_MAJOR or a retried fault, and a fault without registers
 * (get_user_pages) is not. Three ways to see that, best first; user space takes the first that the kernel allows:
 *
 *   page_fault_user/kernel (x86)       the beginning, without the mapping; the end is the software event
 *                                      PAGE_FAULTS_MAJ or _MIN, which mm_account_fault() itself fires
 *   kprobe on handle_mm_fault          the beginning, with the mapping, at a higher price; the end as above
 *   fentry + fexit on handle_mm_fault  beginning and end, with mapping, flags and result; last, because these programs can
 *                                      be preempted, and are then skipped for other tasks on the CPU
 *
 * No kretprobe: it drops returns without counting when more tasks are inside than it has instances.
 *
 * Whether the task is traced is asked at the beginning alone: others have no fault under way in their state, or no state.
 *
 * mm_filemap_map_pages and mm_filemap_fault, where they exist, tell how many pages the kernel set out to map.
 */
#include "names.bpf.h"
#include "filters.bpf.h"
#include "targets.bpf.h"
#include "vma.bpf.h"

const volatile bool has_page_hooks = false; /* flak_map_pages and flak_filemap are attached */

static __always_inline void begin_fault(struct task_struct *task, u64 addr, u64 vma, u32 flags, bool has_regs)
{
	struct task_state *state = state_of(task);

	if (!state)
		return;
	/* A retry goes on with the fault that began before it. */
	if (!(flags & FAULT_FLAG_TRIED && state->fault.is_active && state->fault.addr == addr)) {
		state->fault.start_ns = bpf_ktime_get_boot_ns();
		state->fault.page_count = 0;
		state->fault.maj_flt = tread(task, maj_flt);
	}
	state->fault.addr = addr;
	state->fault.vma = vma;
	state->fault.flags = flags;
	state->fault.has_regs = has_regs;
	state->fault.is_active = true;
}

/* The fault is handled: send it if its mapping is of a file. */
static __always_inline void complete_fault(struct task_struct *task, struct task_state *state, u64 addr, u64 vma_addr,
					   bool is_major, bool is_kernel)
{
	struct fault_state *fault = &state->fault;
	struct vm_area_struct *vma = kcast(struct vm_area_struct, vma_addr);
	u64 file = kaddr(vma_addr, struct vm_area_struct, vm_file);
	u64 now = bpf_ktime_get_boot_ns();
	struct flak_access *access;
	struct file_ref ref = {};
	u64 offset, latency_ns;
	u32 marks, task_id;

	if (!file || ref_of_mapped(state, file, &ref))
		return;
	offset = offset_in_mapping(vma_addr, addr & ~((1ULL << page_shift) - 1));
	/* A write to a page that is mapped already (do_wp_page) passes neither hook and maps that page alone. */
	if (has_page_hooks && !fault->page_count && fault->flags & FAULT_FLAG_WRITE) {
		fault->first_page = offset >> page_shift;
		fault->page_count = 1;
	}
	/* VM_FAULT_COMPLETED has dropped the lock by now: the mapping must still be what it was when its file was read. */
	if (kaddr(vma_addr, struct vm_area_struct, vm_file) != file || addr < kread(vma, vm_start) ||
	    addr >= kread(vma, vm_end)) {
		count(vma_misses);
		return;
	}
	latency_ns = fault->start_ns == FLAK_NONE ? FLAK_NONE : now - fault->start_ns;
	if (is_cut(ref.path_id, false, latency_ns, (u64)(fault->page_count ?: 1) << page_shift))
		return;
	marks = ref.marks | (is_kernel ? FLAK_MARK_KERNEL_FAULT : 0) | (is_major ? FLAK_MARK_IS_MAJOR : 0) |
		(fault->flags & FAULT_FLAG_WRITE ? FLAK_MARK_IS_WRITE : 0);
	task_id = task_id_of(task, state);
	access = reserve_access(task_id, sizeof(*access));
	if (!access) {
		fold_lost(state->process, task_id, ref.file_id, ref.path_id, marks, FLAK_OP_FAULT, fault->page_count,
			  latency_ns);
		return;
	}
	access->ts_ns = fault->start_ns == FLAK_NONE ? now : fault->start_ns;
	access->latency_ns = latency_ns;
	access->file_offset = offset;
	access->size_req = addr;
	access->ret = fault->page_count;
	access->file_id = ref.file_id;
	access->path_id = ref.path_id;
	access->fd = fault->page_count ? (u32)(offset >> page_shift) - fault->first_page : 0;
	access->marks = marks;
	access->op = FLAK_OP_FAULT;
	bpf_ringbuf_submit(access, BPF_RB_NO_WAKEUP);
}

/* fentry/fexit on handle_mm_fault, and the kprobe on it, which begins the same way */

static __always_inline int begin_handling(u64 vma_addr, u64 addr, u32 flags, bool has_regs)
{
	struct task_struct *task = current_task();

	if (is_target(task) && kaddr(vma_addr, struct vm_area_struct, vm_mm) == (u64)tread(task, mm))
		begin_fault(task, addr, vma_addr, flags, has_regs);
	return 0;
}

/* A fault that nobody saw begin. Where tasks are judged, it was not a target's: none that get_user_pages brought in. */
static __always_inline void pass_over(struct task_state *state)
{
	if (judges_tasks)
		state->faults_seen++;
}

static __always_inline int end_handling(u32 ret, bool has_regs)
{
	struct task_struct *task = current_task();
	struct task_state *state;
	u32 flags;

	state = known_state(task);
	if (!state || ret & VM_FAULT_RETRY)
		return 0;
	if (!state->fault.is_active) {
		if (has_regs && !(ret & VM_FAULT_ERROR))
			pass_over(state);
		return 0;
	}
	state->fault.is_active = false;
	if (ret & VM_FAULT_ERROR || !state->fault.has_regs)
		return 0;
	state->faults_seen++;
	flags = state->fault.flags;
	complete_fault(task, state, state->fault.addr, state->fault.vma,
		       ret & VM_FAULT_MAJOR || flags & FAULT_FLAG_TRIED, !(flags & FAULT_FLAG_USER));
	return 0;
}

SEC("?fentry/handle_mm_fault")
int BPF_PROG(flak_fault_in, struct vm_area_struct *vma, unsigned long addr, unsigned int flags, struct pt_regs *regs)
{
	return begin_handling((u64)vma, addr, flags, regs != NULL);
}

SEC("?fexit/handle_mm_fault")
int BPF_PROG(flak_fault_out, struct vm_area_struct *vma, unsigned long addr, unsigned int flags, struct pt_regs *regs,
	     unsigned int ret)
{
	return end_handling(ret, regs != NULL);
}

SEC("?kprobe/handle_mm_fault")
int BPF_KPROBE(flak_kfault_in, u64 vma, unsigned long addr, unsigned int flags, u64 regs)
{
	return begin_handling(vma, addr, flags, regs != 0);
}

/* The exception's tracepoints; they and the kprobe end with the accounting's software events */

SEC("?tp_btf/page_fault_user")
int BPF_PROG(flak_pf_user, unsigned long addr, struct pt_regs *regs, unsigned long error_code)
{
	struct task_struct *task = current_task();

	/* Bit 1 of the error code: a write (X86_PF_WRITE) */
	if (is_target(task))
		begin_fault(task, addr, 0, error_code & 2 ? FAULT_FLAG_WRITE : 0, true);
	return 0;
}

SEC("?tp_btf/page_fault_kernel")
int BPF_PROG(flak_pf_kernel, unsigned long addr, struct pt_regs *regs, unsigned long error_code)
{
	struct task_struct *task = current_task();

	/* Copies that must not fault (ours among them) come by here too, and are never handled. */
	if (is_target(task) && tread(task, pagefault_disabled) == OWN_PAGEFAULT_DISABLE)
		begin_fault(task, addr, 0, error_code & 2 ? FAULT_FLAG_WRITE : 0, true);
	return 0;
}

/*
 * Runs at PAGE_FAULTS_MAJ and at PAGE_FAULTS_MIN. Which of them it is tells the task's own count, which the kernel has
 * just raised.
 */
SEC("?perf_event")
int flak_fault_end(struct bpf_perf_event_data *ctx)
{
	struct task_struct *task = current_task();
	struct task_state *state;
	u64 vma;

	state = known_state(task);
	if (!state)
		return 0;
	if (!state->fault.is_active) {
		pass_over(state);
		return 0;
	}
	state->fault.is_active = false;
	state->faults_seen++;
	if (state->fault.addr != ctx->addr) {
		/* Another fault came between, or the one begun failed, and its task may be no target any more. */
		if (!is_target(task))
			return 0;
		state->fault.start_ns = FLAK_NONE; /* its beginning is not known */
	}
	vma = state->fault.vma ?: find_mapping(current_mm(), ctx->addr);
	if (vma)
		complete_fault(task, state, ctx->addr, vma, tread(task, maj_flt) != state->fault.maj_flt,
			       !is_user_mode(&ctx->regs));
	else
		count(vma_misses);
	return 0;
}

/* How many pages: the window of fault-around, unless the page had to be brought in by itself. */

SEC("?tp_btf/mm_filemap_map_pages")
int BPF_PROG(flak_map_pages, struct address_space *mapping, unsigned long first, unsigned long last)
{
	struct task_struct *task = current_task();
	struct task_state *state;

	state = known_state(task);
	if (!state || !state->fault.is_active)
		return 0;
	state->fault.first_page = first;
	state->fault.page_count = last - first + 1;
	return 0;
}

SEC("?tp_btf/mm_filemap_fault")
int BPF_PROG(flak_filemap, struct address_space *mapping, unsigned long page)
{
	struct task_struct *task = current_task();
	struct task_state *state;

	state = known_state(task);
	if (!state || !state->fault.is_active)
		return 0;
	state->fault.first_page = page;
	state->fault.page_count = 1;
	return 0;
}
