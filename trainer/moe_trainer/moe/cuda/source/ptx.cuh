// The instructions of sm_90a that the kernels use, one small function each, and nothing else. The tests compile the same
// kernels for a CPU with another file of this name, in which each function does what the PTX manual specifies for the
// instruction.
//
// Addresses of shared memory are 32-bit numbers in the window shared::cta, as the instructions expect them; no pointer into
// shared memory is ever dereferenced.
#pragma once

namespace moe {

using u16 = unsigned short;  // also one bf16
using u32 = unsigned int;
using u64 = unsigned long long;

// A tensor as the copy engine sees it (CUtensorMap); encoded on the host, opaque here.
struct alignas(64) TensorMap {
    u64 words[16];
};

// What one thread copies at a time: 16 bytes, eight bf16.
struct Chunk {
    u32 words[4];
};

// ---- where a thread is ----------------------------------------------------------------------------------

__device__ __forceinline__ u32 thread_index() { return threadIdx.x; }
__device__ __forceinline__ u32 block_index() { return blockIdx.x; }
__device__ __forceinline__ u32 blocks_in_grid() { return gridDim.x; }

__device__ __forceinline__ u32 rank_in_cluster() {
    u32 rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

// The first address of the block's dynamic shared memory. The 128-byte swizzle depends on address bits, so tiles must begin
// at multiples of 1024.
__device__ __forceinline__ u32 shared_base() {
    extern __shared__ __align__(1024) unsigned char dynamic[];
    return static_cast<u32>(__cvta_generic_to_shared(dynamic));
}

// ---- threads that wait for each other -------------------------------------------------------------------

// Waits for all threads of the cluster. Lanes of a warp that have diverged are brought together first, since the barrier
// counts warps.
__device__ __forceinline__ void cluster_sync() {
    __syncwarp();
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

__device__ __forceinline__ u32 shuffle_xor(u32 value, int lanes) {
    return __shfl_xor_sync(0xffffffffu, value, lanes);
}

// ---- mbarriers: a phase ends when all its threads have arrived and all its bytes have been copied --------

__device__ __forceinline__ void barrier_init(u32 barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

// Makes the initialised barriers visible to the copy engine and to the other blocks of the cluster.
__device__ __forceinline__ void barrier_init_fence() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void barrier_arrive(u32 barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// Arrives at the barrier with the same address in the block `rank` of the cluster. As in the wait below, the default scope
// is enough: it orders reads by the tensor cores, which have completed, before writes by the copy engine. For cluster scope
// the assembler would add a fence of the whole device.
__device__ __forceinline__ void barrier_arrive_at(u32 barrier, u32 rank) {
    asm volatile(
        "{\n"
        ".reg .b32 remote;\n"
        "mapa.shared::cluster.u32 remote, %0, %1;\n"
        "mbarrier.arrive.shared::cluster.b64 _, [remote];\n"
        "}" ::"r"(barrier),
        "r"(rank)
        : "memory");
}

// Arrives, and makes the phase wait for `bytes` more bytes from the copy engine.
__device__ __forceinline__ void barrier_expect(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

// Returns once the phase with this parity has ended.
__device__ __forceinline__ void barrier_wait(u32 barrier, u32 parity) {
    u32 done;
    do {
        asm volatile(
            "{\n"
            ".reg .pred p;\n"
            "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
            "selp.u32 %0, 1, 0, p;\n"
            "}"
            : "=r"(done)
            : "r"(barrier), "r"(parity)
            : "memory");
    } while (!done);
}

// ---- copies from device memory to shared memory ----------------------------------------------------------

// Copies 16 bytes, or writes 16 zero bytes if the row is not wanted (`source` must be a valid address anyway).
__device__ __forceinline__ void gather(u32 destination, const void* source, bool wanted) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(destination),
                 "l"(__cvta_generic_to_global(source)), "r"(wanted ? 16 : 0)
                 : "memory");
}

__device__ __forceinline__ void gather_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Returns when all of this thread's groups but the last `kPending` have been copied.
template <int kPending>
__device__ __forceinline__ void gather_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Makes what this thread has written, or waited for, with ordinary instructions visible to the tensor cores.
__device__ __forceinline__ void async_proxy_fence() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

struct Coordinates {
    int x0, x1, x2, x3;  // innermost first, in elements
};

// Copies one box of a tensor; elements outside the tensor become 0. Called by one thread.
__device__ __forceinline__ void copy_box(u32 destination, const TensorMap& map, u32 barrier, Coordinates at) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes"
        " [%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(destination),
        "l"(reinterpret_cast<u64>(&map)), "r"(barrier), "r"(at.x0), "r"(at.x1), "r"(at.x2), "r"(at.x3)
        : "memory");
}

// Copies one box into each block of the cluster whose bit is set in `ranks`, at the same address in each; the barrier of
// each block counts the bytes that arrive there.
__device__ __forceinline__ void copy_box_to(
    u32 destination, const TensorMap& map, u32 barrier, Coordinates at, u16 ranks) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster"
        " [%0], [%1, {%3, %4, %5, %6}], [%2], %7;" ::"r"(destination),
        "l"(reinterpret_cast<u64>(&map)), "r"(barrier), "r"(at.x0), "r"(at.x1), "r"(at.x2), "r"(at.x3), "h"(ranks)
        : "memory");
}

// ---- device memory, 16 bytes per thread -------------------------------------------------------------------

__device__ __forceinline__ void store_chunk(u16* destination, const Chunk& chunk) {
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(destination)),
                 "r"(chunk.words[0]), "r"(chunk.words[1]), "r"(chunk.words[2]), "r"(chunk.words[3])
                 : "memory");
}

// Only for memory that the kernel does not write.
__device__ __forceinline__ Chunk load_chunk(const u16* source) {
    Chunk chunk;
    asm("ld.global.nc.v4.b32 {%0, %1, %2, %3}, [%4];"
        : "=r"(chunk.words[0]), "=r"(chunk.words[1]), "=r"(chunk.words[2]), "=r"(chunk.words[3])
        : "l"(__cvta_generic_to_global(source)));
    return chunk;
}

// ---- tensor cores ----------------------------------------------------------------------------------------

__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// Keeps the compiler from using the sums before the preceding wait; costs no instruction.
__device__ __forceinline__ void wgmma_settled(float (&acc)[128]) {
#pragma unroll
    for (int i = 0; i < 128; ++i) {
        asm volatile("" : "+f"(acc[i])::"memory");
    }
}

// acc = a b + (accumulate ? acc : 0) for 64 x 16 times 16 x 256, in bf16 with sums in fp32. `a` and `b` are descriptors of
// tiles in shared memory. With kAcross, b is stored as 16 rows of 256 columns, otherwise as 256 rows of 16.
template <bool kAcross>
__device__ __forceinline__ void wgmma(float (&acc)[128], u64 a, u64 b, bool accumulate) {
    asm volatile(
        "{\n"
        ".reg .pred p;\n"
        "setp.ne.b32 p, %130, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
        "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
        "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
        "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
        "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "
        "%128, %129, p, 1, 1, 0, %131;\n"
        "}"
        : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3]), "+f"(acc[4]), "+f"(acc[5]), "+f"(acc[6]), "+f"(acc[7]),
          "+f"(acc[8]), "+f"(acc[9]), "+f"(acc[10]), "+f"(acc[11]), "+f"(acc[12]), "+f"(acc[13]), "+f"(acc[14]), "+f"(acc[15]),
          "+f"(acc[16]), "+f"(acc[17]), "+f"(acc[18]), "+f"(acc[19]), "+f"(acc[20]), "+f"(acc[21]), "+f"(acc[22]), "+f"(acc[23]),
          "+f"(acc[24]), "+f"(acc[25]), "+f"(acc[26]), "+f"(acc[27]), "+f"(acc[28]), "+f"(acc[29]), "+f"(acc[30]), "+f"(acc[31]),
          "+f"(acc[32]), "+f"(acc[33]), "+f"(acc[34]), "+f"(acc[35]), "+f"(acc[36]), "+f"(acc[37]), "+f"(acc[38]), "+f"(acc[39]),
          "+f"(acc[40]), "+f"(acc[41]), "+f"(acc[42]), "+f"(acc[43]), "+f"(acc[44]), "+f"(acc[45]), "+f"(acc[46]), "+f"(acc[47]),
          "+f"(acc[48]), "+f"(acc[49]), "+f"(acc[50]), "+f"(acc[51]), "+f"(acc[52]), "+f"(acc[53]), "+f"(acc[54]), "+f"(acc[55]),
          "+f"(acc[56]), "+f"(acc[57]), "+f"(acc[58]), "+f"(acc[59]), "+f"(acc[60]), "+f"(acc[61]), "+f"(acc[62]), "+f"(acc[63]),
          "+f"(acc[64]), "+f"(acc[65]), "+f"(acc[66]), "+f"(acc[67]), "+f"(acc[68]), "+f"(acc[69]), "+f"(acc[70]), "+f"(acc[71]),
          "+f"(acc[72]), "+f"(acc[73]), "+f"(acc[74]), "+f"(acc[75]), "+f"(acc[76]), "+f"(acc[77]), "+f"(acc[78]), "+f"(acc[79]),
          "+f"(acc[80]), "+f"(acc[81]), "+f"(acc[82]), "+f"(acc[83]), "+f"(acc[84]), "+f"(acc[85]), "+f"(acc[86]), "+f"(acc[87]),
          "+f"(acc[88]), "+f"(acc[89]), "+f"(acc[90]), "+f"(acc[91]), "+f"(acc[92]), "+f"(acc[93]), "+f"(acc[94]), "+f"(acc[95]),
          "+f"(acc[96]), "+f"(acc[97]), "+f"(acc[98]), "+f"(acc[99]), "+f"(acc[100]), "+f"(acc[101]), "+f"(acc[102]), "+f"(acc[103]),
          "+f"(acc[104]), "+f"(acc[105]), "+f"(acc[106]), "+f"(acc[107]), "+f"(acc[108]), "+f"(acc[109]), "+f"(acc[110]), "+f"(acc[111]),
          "+f"(acc[112]), "+f"(acc[113]), "+f"(acc[114]), "+f"(acc[115]), "+f"(acc[116]), "+f"(acc[117]), "+f"(acc[118]), "+f"(acc[119]),
          "+f"(acc[120]), "+f"(acc[121]), "+f"(acc[122]), "+f"(acc[123]), "+f"(acc[124]), "+f"(acc[125]), "+f"(acc[126]), "+f"(acc[127])
        : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)), "n"(kAcross ? 1 : 0));
}

// ---- registers: the producer gives up what the consumers need ---------------------------------------------

template <int kRegisters>
__device__ __forceinline__ void give_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

template <int kRegisters>
__device__ __forceinline__ void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// ---- numbers ----------------------------------------------------------------------------------------------

// Two bf16 in one word, the first in the low half.
__device__ __forceinline__ u32 pack(float low, float high) {
    u32 word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
}

__device__ __forceinline__ float low_of(u32 word) { return __uint_as_float(word << 16); }
__device__ __forceinline__ float high_of(u32 word) { return __uint_as_float(word & 0xffff0000u); }
__device__ __forceinline__ u32 bits_of(float value) { return __float_as_uint(value); }
__device__ __forceinline__ float float_of(u32 bits) { return __uint_as_float(bits); }

// 1 / (1 + e^-x); __fdividef gives 0 where e^-x is infinite.
__device__ __forceinline__ float sigmoid(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }

}  // namespace moe
