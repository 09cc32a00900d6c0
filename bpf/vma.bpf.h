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

struct maple_walk {
	u64 addr;
	u64 entry; /* a node, at the end what the leaf holds */
	u64 last;  /* last address of the slot that was found: of a mapping, or of a gap */
	u32 is_leaf;
	u32 pad;
};

/* One level down: the slot whose range holds the address. */
static long maple_step(u32 level, void *context)
{
	struct maple_walk *walk = context;
	u32 type = (walk->entry >> 3) & 0xf;
	u64 node = walk->entry & ~MAPLE_NODE_MASK;
	u64 pivots, slots, pivot = 0;
	u32 i, last;

	walk->is_leaf = type <= MAPLE_LEAF_64;
	if (type == MAPLE_ARANGE_64) {
		pivots = node + bpf_core_field_offset(struct maple_arange_64, pivot);
		slots = node + bpf_core_field_offset(struct maple_arange_64, slot);
		last = bpf_core_field_size(struct maple_arange_64, pivot) / 8;
	} else {
		pivots = node + bpf_core_field_offset(struct maple_range_64, pivot);
		slots = node + bpf_core_field_offset(struct maple_range_64, slot);
		last = bpf_core_field_size(struct maple_range_64, pivot) / 8;
	}
	walk->entry = 0;
	if (load_u64(node) == node) /* a dead node's parent is itself: replaced under us */
		return 1;
	for (i = 0; i < 15; i++) {
		if (i >= last) {
			pivot = 0;
			break;
		}
		pivot = load_u64(pivots + i * 8);
		/* A pivot is the last index of its slot; zero behind the first means that the rest is not used. */
		if (pivot >= walk->addr || (!pivot && i))
			break;
	}
	if (pivot) /* the last slot ends where its node does */
		walk->last = pivot;
	walk->entry = load_u64(slots + i * 8);
	return walk->is_leaf || !walk->entry;
}

/* The mapping that holds an address, 0: none. last: the end of the mapping, or of the gap. */
static __always_inline u64 find_in_maple_tree(u64 mm, u64 addr, u64 *last)
{
	struct maple_walk walk = {.addr = addr, .last = ~0ULL};
	struct vm_area_struct *vma;

	*last = ~0ULL;
	walk.entry = kaddr(mm, struct mm_struct, mm_mt.ma_root);
	if ((walk.entry & 3) != 2 || walk.entry < 4096) /* xa_is_node(): a root that is no node holds index 0 only */
		return 0;
	repeat(MAPLE_MAX_DEPTH, maple_step, &walk);
	*last = walk.last;
	if (!walk.is_leaf || !walk.entry || walk.entry & 3)
		return 0;
	vma = kcast(struct vm_area_struct, walk.entry);
	if (addr < kread(vma, vm_start) || addr >= kread(vma, vm_end))
		return 0;
	return walk.entry;
}

/* 2 * log2 of vm.max_map_count, 65,530 by default, and some more */
#define RB_MAX_DEPTH 40

struct rb_walk {
	u64 addr;
	u64 node;
	u64 found;
	u64 last; /* of the gap, as far as seen */
};

static long rb_step(u32 level, void *context)
{
	struct rb_walk *walk = context;
	struct vm_area_struct *vma;
	u64 at, start;

	if (!walk->node)
		return 1;
	at = walk->node - bpf_core_field_offset(struct vm_area_struct___rb, vm_rb);
	vma = kcast(struct vm_area_struct, at);
	start = kread(vma, vm_start);
	if (walk->addr < start) {
		walk->last = start - 1;
		walk->node = kaddr(walk->node, struct rb_node, rb_left);
		return 0;
	}
	if (walk->addr >= kread(vma, vm_end)) {
		walk->node = kaddr(walk->node, struct rb_node, rb_right);
		return 0;
	}
	walk->last = kread(vma, vm_end) - 1;
	walk->found = at;
	return 1;
}

/*
 * The same before 6.1 ("mm: start tracking VMAs with maple tree", d4af56c5c7c6), where mappings are in a red-black tree.
 * In a page fault it stands still, for the kernel holds mmap_lock.
 */
static __always_inline u64 find_in_rb_tree(u64 mm, u64 addr, u64 *last)
{
	struct rb_walk walk = {.addr = addr, .node = kaddr(mm, struct mm_struct___rb, mm_rb.rb_node), .last = ~0ULL};

	repeat(RB_MAX_DEPTH, rb_step, &walk);
	*last = walk.last;
	/* Memory of a mapping that went may be another program's by now: there they are freed at once. */
	if (walk.found && kaddr(walk.found, struct vm_area_struct, vm_mm) != mm)
		return 0;
	return walk.found;
}

/* find_mapping(), or the end of the mapping or gap that it found. */
__noinline u64 mapping_at(u64 mm, u64 addr, u64 wants_last)
{
	u64 found, last;

	if (!mm)
		return 0;
	if (bpf_core_field_exists(struct mm_struct, mm_mt))
		found = find_in_maple_tree(mm, addr, &last);
	else
		found = find_in_rb_tree(mm, addr, &last);
	return wants_last ? last : found;
}

/* struct vm_area_struct * of a struct mm_struct * that holds the address, 0: none. */
static __always_inline u64 find_mapping(u64 mm, u64 addr)
{
	return mapping_at(mm, addr, false);
}

/* Where the mapping that holds the address ends, or the gap. */
static __always_inline u64 end_of_mapping(u64 mm, u64 addr)
{
	return mapping_at(mm, addr, true);
}

static __always_inline u64 current_mm(void)
{
	return kaddr(current_task(), struct task_struct, mm);
}

/* Byte in the file that a mapping shows at an address. */
static __always_inline u64 offset_in_mapping(u64 vma_addr, u64 addr)
{
	struct vm_area_struct *vma = kcast(struct vm_area_struct, vma_addr);

	return (kread(vma, vm_pgoff) << page_shift) + (addr - kread(vma, vm_start));
}

#endif /* FLAK_VMA_BPF_H */
