// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * Programs that do nothing, at the hooks that FLAK uses: what remains when all of FLAK's own work is taken away. And
 * bpf_find_vma() alone, the helper that FLAK's walk of the maple tree stands in for.
 */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char _license[] SEC("license")
= "Dual BSD/GPL";

u64 found = 0; /* the loader expects a .bss */

SEC("?tp_btf/sys_enter")
int floor_enter(u64 *ctx)
{
	return 0;
}

SEC("?tp_btf/sys_exit")
int floor_exit(u64 *ctx)
{
	return 0;
}

SEC("?tp_btf/page_fault_user")
int floor_fault(u64 *ctx)
{
	return 0;
}

static long take(struct task_struct *task, struct vm_area_struct *vma, void *context)
{
	*(u64 *)context = vma->vm_pgoff;
	return 0;
}

SEC("?tp_btf/page_fault_user")
int floor_find_vma(u64 *ctx)
{
	u64 offset = 0;

	if (!bpf_find_vma(bpf_get_current_task_btf(), ctx[0], take, &offset, 0))
		found = offset;
	return 0;
}
