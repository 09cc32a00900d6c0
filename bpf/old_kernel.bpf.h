/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * What BPF programs do without on kernels before 5.18 or so, and what is used instead there. Each pair of definitions says
 * what the programs want, first as old kernels give it. The object is another one, because a kernel refuses an object for
 * what it does not know, also where it would not be reached (docs/architecture.md, "Old kernels").
 */
#ifndef FLAK_OLD_KERNEL_BPF_H
#define FLAK_OLD_KERNEL_BPF_H

#ifdef FLAK_OLD_KERNEL
#define IS_OLD_KERNEL 1
#else
#define IS_OLD_KERNEL 0
#endif

/*
 * Typed pointers to tasks. Before 5.11 there is none to the current one ("bpf: Introduce bpf_get_current_task_btf()",
 * 3ca1032ab7ab): there a task's address is a number, and its fields are read by probes, as registers are.
 */
#if IS_OLD_KERNEL
#define current_task() ((struct task_struct *)bpf_get_current_task())
#define tread(task, field) kread((struct task_struct *)(task), field)
#define tread_anew(task, field) tread(task, field)
#define reg(regs, name) load_u64((u64) & (regs)->name)
/* Those that a program's context holds, made numbers: the verifier hands typed ones to no global function. */
#define argument_of(ctx, place, pointer) ((typeof(pointer))load_u64((u64)(ctx) + 8 * (place)))
#define task_of(ctx) ((struct task_struct *)load_u64((u64)(ctx) + 8)) /* behind the iterator's own data */
/* The probe that reads task->pagefault_disabled has raised it (copy_from_kernel_nofault). */
#define OWN_PAGEFAULT_DISABLE 1
#else
#define current_task() bpf_get_current_task_btf()
#define tread(task, field) ((task)->field)
#define tread_anew(task, field) (*(volatile typeof((task)->field) *)&(task)->field)
#define reg(regs, name) ((regs)->name)
#define argument_of(ctx, place, pointer) (pointer)
#define task_of(ctx) ((ctx)->task)
#define OWN_PAGEFAULT_DISABLE 0
#endif

/*
 * Memory as an argument of a global function, since 5.12 ("bpf: Support pointers in global func args", e5069b9c23b3). One
 * that is about a task's state is given the task's address instead, and looks its state up; others are static, and
 * verified once for each way to reach them.
 */
#if IS_OLD_KERNEL
#define STATE_ARGUMENT u64 state_of_task
#define begin_state() struct task_state *state = known_state((struct task_struct *)state_of_task)
#define hand_over(state) ((state)->task)
#define TAKES_MEMORY static __noinline __attribute__((unused))
#else
#define STATE_ARGUMENT struct task_state *state
#define begin_state() (void)0
#define hand_over(state) (state)
#define TAKES_MEMORY __noinline
#endif

/*
 * Loops, since 5.17 ("bpf: Add bpf_loop helper", e6f2dd0f8067): step(index, context) until it says 1. Before, the verifier
 * follows every round of a loop. repeat_up_to() wants a constant above the number of rounds, repeat() a constant number.
 *
 * Of repeat_in_scratch(), for long ones, the context is the number of a scratch, and make_repeatable() makes their
 * functions: one step, and some of them, are global and verified but once.
 */
#if IS_OLD_KERNEL
#define REPEATED_AT_ONCE 64
#define repeat_up_to(limit, times, step, context)                                                                      \
	({                                                                                                             \
		u64 __round, __times = (times);                                                                        \
		for (__round = 0; __round < (limit) && __round < __times; __round++)                                   \
			if (step(__round, context))                                                                    \
				break;                                                                                 \
		__round;                                                                                               \
	})
#define repeat(times, step, context) repeat_up_to(times, times, step, context)
#define make_repeatable(step, times)                                                                                   \
	__noinline int step##_once(u32 index, u32 which)                                                               \
	{                                                                                                              \
		return step(index, &which);                                                                            \
	}                                                                                                              \
	__noinline u32 step##_some(u32 first, u32 which)                                                               \
	{                                                                                                              \
		u32 i;                                                                                                 \
		for (i = 0; i < REPEATED_AT_ONCE; i++)                                                                 \
			if (step##_once(first + i, which))                                                             \
				break;                                                                                 \
		return i;                                                                                              \
	}                                                                                                              \
	static __always_inline u32 step##_all(u32 which)                                                               \
	{                                                                                                              \
		u32 i;                                                                                                 \
		for (i = 0; i < (times); i += REPEATED_AT_ONCE)                                                        \
			if (step##_some(i, which) < REPEATED_AT_ONCE)                                                  \
				break;                                                                                 \
		return i;                                                                                              \
	}                                                                                                              \
	_Static_assert((times) % REPEATED_AT_ONCE == 0, "whole lots")
#define repeat_in_scratch(times, step, which) step##_all(which)
#else
#define repeat_up_to(limit, times, step, context) bpf_loop(times, step, context, 0)
#define repeat(times, step, context) bpf_loop(times, step, context, 0)
#define make_repeatable(step, times) _Static_assert(times, "some")
#define repeat_in_scratch(times, step, which) bpf_loop(times, step, &which, 0)
#endif

/*
 * Atomic changes whose result is used, since 5.12 ("bpf: Add BPF_FETCH field / create atomic_fetch_add instruction",
 * 5ca419f2864a). Before, what is one CPU's is read, then added to: tracepoints run their programs with preemption off, and
 * FLAK has none that runs in an interrupt. (An iterator that is preempted between, which happens from 5.11 on and on
 * kernels built for preemption, can give a number out twice; none is ever taken back.) What CPUs share is changed under a
 * lock. A program that waited for it in vain goes on without: then, too, two could get one number.
 */
#if IS_OLD_KERNEL
#define take_number(word)                                                                                              \
	({                                                                                                             \
		u64 __number = *(word);                                                                                \
		__sync_fetch_and_add(word, 1);                                                                         \
		__number;                                                                                              \
	})
#define or_own(word, bits)                                                                                             \
	({                                                                                                             \
		u64 __before = *(word);                                                                                \
		*(word) = __before | (bits);                                                                           \
		__before;                                                                                              \
	})
#define and_own(word, bits) (*(word) &= (bits))
#define next_id(word)                                                                                                  \
	({                                                                                                             \
		u32 __id, __is_locked = try_lock(LOCK_SHARED);                                                         \
		__id = *(volatile u32 *)(word) + 1;                                                                    \
		__sync_fetch_and_add(word, 1);                                                                         \
		unlock(LOCK_SHARED, __is_locked);                                                                      \
		__id;                                                                                                  \
	})
/* What the word was; it is changed if that is `before`. Others may add to it: what stays the same is not stored. */
#define exchange_if(word, before, after)                                                                               \
	({                                                                                                             \
		typeof(*(word)) __was;                                                                                 \
		u32 __is_locked = try_lock(LOCK_SHARED);                                                               \
		__was = *(volatile typeof(__was) *)(word);                                                             \
		if (__was == (before) && (before) != (after))                                                          \
			*(volatile typeof(__was) *)(word) = (after);                                                   \
		unlock(LOCK_SHARED, __is_locked);                                                                      \
		__was;                                                                                                 \
	})

/* A lock is an element of a map: only one can insert it. Below LOCK_SHARED they are numbers of processes. */
#define LOCK_SHARED (1ULL << 32)

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, u64);
	__type(value, u32);
} locks SEC(".maps");

int try_lock(u64 key);
int unlock(u64 key, u32 is_locked);
#else
#define take_number(word) __sync_fetch_and_add(word, 1)
#define or_own(word, bits) __sync_fetch_and_or(word, bits)
#define and_own(word, bits) __sync_fetch_and_and(word, bits)
#define next_id(word) (__sync_fetch_and_add(word, 1) + 1)
#define exchange_if(word, before, after) __sync_val_compare_and_swap(word, before, after)
#endif

#endif /* FLAK_OLD_KERNEL_BPF_H */
