/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * Which mapping holds an address? The maple tree of the mm, walked with plain loads as mtree_lookup_walk() does
 * (lib/maple_tree.c). bpf_find_vma() gives the same answer but takes 10 us in fault context.
 *
 * What is found is checked against its own bounds, so a tree that changes under the walk can at worst hide a mapping
 * (vma_misses), not show a wrong one.
 */
#ifndef FLAK_VMA_BPF_H
#define FLAK_VMA_BPF_H

#include "core.bpf.h"

/* enum maple_type: a node's kind stands in bits 3–6 of the pointer to it, the rest of the low byte is flags. */
#define MAPLE_LEAF_64 1
#define MAPLE_ARANGE_64 3
#define MAPLE_NODE_MASK 0xffULL
/* A tree of n levels holds at least 5^n mappings when half full; sysctl vm.max_map_count is 65,530 by default. */
#define MAPLE_MAX_DEPTH 10

static __always_inline u64 maple_child(u64 entry, u64 addr, bool *is_leaf)
{
	u32 type = (entry >> 3) & 0xf;
	u64 node = entry & ~MAPLE_NODE_MASK;
	u64 pivots, slots;
	u32 i, last;

	*is_leaf = type <= MAPLE_LEAF_64;
	if (type == MAPLE_ARANGE_64) {
		pivots = node + bpf_core_field_offset(struct maple_arange_64, pivot);
		slots = node + bpf_core_field_offset(struct maple_arange_64, slot);
		last = bpf_core_field_size(struct maple_arange_64, pivot) / 8;
	} else {
		pivots = node + bpf_core_field_offset(struct maple_range_64, pivot);
		slots = node + bpf_core_field_offset(struct maple_range_64, slot);
		last = bpf_core_field_size(struct maple_range_64, pivot) / 8;
	}
	if (load_u64(node) == node) /* a dead node's parent is itself: replaced under us */
		return 0;
	for (i = 0; i < 15; i++) {
		u64 pivot;

		if (i >= last)
			break;
		pivot = load_u64(pivots + i * 8);
		/* A pivot is the last index of its slot; zero behind the first means that the rest is not used. */
		if (pivot >= addr || (!pivot && i))
			break;
	}
	return load_u64(slots + i * 8);
}

/* struct vm_area_struct * of the current task that holds the address, 0 when there is none. */
__noinline u64 find_mapping(u64 addr)
{
	u64 mm = kaddr(bpf_get_current_task_btf(), struct task_struct, mm);
	struct vm_area_struct *vma;
	bool is_leaf = false;
	u64 entry;
	u32 depth;

	if (!mm)
		return 0;
	entry = kaddr(mm, struct mm_struct, mm_mt.ma_root);
	if ((entry & 3) != 2 || entry < 4096) /* xa_is_node(): a root that is no node holds index 0 only */
		return 0;
	for (depth = 0; depth < MAPLE_MAX_DEPTH && entry; depth++) {
		entry = maple_child(entry, addr, &is_leaf);
		if (is_leaf)
			break;
	}
	if (!is_leaf || !entry || entry & 3)
		return 0;
	vma = kcast(struct vm_area_struct, entry);
	if (addr < kread(vma, vm_start) || addr >= kread(vma, vm_end))
		return 0;
	return entry;
}

/* Byte in the file that a mapping shows at an address. */
static __always_inline u64 offset_in_mapping(u64 vma_addr, u64 addr)
{
	struct vm_area_struct *vma = kcast(struct vm_area_struct, vma_addr);

	return (kread(vma, vm_pgoff) << PAGE_SHIFT) + (addr - kread(vma, vm_start));
}

#endif /* FLAK_VMA_BPF_H */
