// The pipeline that all products share: tiles of 128 x 256, steps with a depth of 64, four steps in flight.
//
// Warpgroup 0 produces: it fills a ring of stages in shared memory with 128 rows of the left operand (gathered row by row
// with cp.async, or copied as a box by the copy engine) and with the weights (always copied by the copy engine).
// Warpgroups 1 and 2 consume: each multiplies 64 of the rows by all 256 columns, keeps the sums in registers, and runs the
// product's epilogue on them. There are two mbarriers per stage: a phase of `full` ends when the stage has been filled, a
// phase of `empty` when every warp that reads the stage has finished with it.
//
// In a cluster of two, each block copies one half of the weights into both blocks, so each block reads only 32 KiB per step
// from the L2 cache instead of 48 KiB. Whether that is faster on a device has not been measured.
//
// Swizzle: a stage holds rows of 64 bf16 = 128 bytes, and the 16-byte chunk c of row r is stored at c ^ (r % 8). So when the
// tensor cores read a column of eight rows, the reads touch different banks. The copy engine swizzles as it writes
// (SWIZZLE_128B), the gathers below do so themselves, and wgmma's descriptors declare it.
#pragma once

#include <tiles.cuh>

namespace moe {

constexpr int kDepth = 64;   // one 128-byte row of bf16
constexpr int kStages = 4;   // 4 x 48 KiB + barriers fit in the 227 KiB of a block
constexpr int kLag = 2;      // gathers in flight before waiting for the oldest; must be below kStages - 1
constexpr int kWarpgroup = 128;
constexpr int kThreads = 3 * kWarpgroup;
constexpr u32 kRowBytes = kDepth * 2;
constexpr u32 kLeftBytes = kRows * kRowBytes;
constexpr u32 kHalfBytes = kColumns / 2 * kRowBytes;
constexpr u32 kStageBytes = kLeftBytes + 2 * kHalfBytes;

// 65536 registers for 384 threads, in steps of 8, are 168 per thread at entry: 64512 in all. Each consumer thread holds 128
// sums and the epilogue's values; the producer needs only addresses. 40 x 128 + 232 x 256 = 64512.
constexpr int kProducerRegisters = 40;
constexpr int kConsumerRegisters = 232;

// A position in the ring, and how often it has gone around (modulo 2).
struct Ring {
    int stage = 0;
    u32 parity = 0;

    __device__ __forceinline__ void advance() {
        if (++stage == kStages) {
            stage = 0;
            parity ^= 1;
        }
    }
};

// The block's shared memory: the stages, then the barriers.
struct Shared {
    u32 base;

    __device__ __forceinline__ u32 left(int stage) const { return base + stage * kStageBytes; }
    __device__ __forceinline__ u32 weights(int stage) const { return left(stage) + kLeftBytes; }
    __device__ __forceinline__ u32 full(int stage) const { return base + kStages * kStageBytes + 8 * stage; }
    __device__ __forceinline__ u32 empty(int stage) const { return full(stage) + 8 * kStages; }
};

// Initialises the barriers; `producers` threads arrive at `full` for each stage.
__device__ __forceinline__ Shared prepare(int producers) {
    const Shared shared{shared_base()};
    if (thread_index() == 0) {
        for (int stage = 0; stage < kStages; ++stage) {
            barrier_init(shared.full(stage), producers);
            barrier_init(shared.empty(stage), 2 * kWarpgroup / 32 * kCluster);  // one per consumer warp
        }
        barrier_init_fence();
    }
    cluster_sync();
    return shared;
}

// ---- producers --------------------------------------------------------------------------------------------

// Lets the copy engine fill the weights of a stage, and announces `extra` more bytes to its barrier. `at(half)` returns
// where each of the two halves of the tile's columns is.
template <typename At>
__device__ __forceinline__ void copy_weights(const Shared& shared, int stage, const TensorMap& map, u32 extra, At at) {
    const u32 full = shared.full(stage);
    barrier_expect(full, 2 * kHalfBytes + extra);
    if constexpr (kCluster == 1) {
        copy_box(shared.weights(stage), map, full, at(0));
        copy_box(shared.weights(stage) + kHalfBytes, map, full, at(1));
    } else {
        const int half = static_cast<int>(rank_in_cluster());
        copy_box_to(shared.weights(stage) + half * kHalfBytes, map, full, at(half), 0b11);
    }
}

// A left operand that is gathered: for each place, row `slots[place] / active` of a matrix that is `width` wide.
struct Gathered {
    static constexpr int kProducers = kWarpgroup + 1;  // one arrival per thread, and one for the expected bytes

    const u16* matrix;
    const int* slots;
    int active;
    int width;
};

// Eight lanes copy one row, 16 bytes each; a warpgroup copies 16 rows at a time, and all 128 in eight turns.
constexpr int kGathers = kRows / (kWarpgroup / 8);

template <typename At>
__device__ __forceinline__ void produce(
    const Shared& shared, Tiles tiles, int steps, const Gathered& left, const TensorMap& weights, At at) {
    const int thread = thread_index();
    const int row = thread / 8;
    const int chunk = thread % 8;
    const u32 inside = row * kRowBytes + (chunk ^ row % 8) * 16;  // 16 rows further down, row % 8 is the same
    Ring ring;
    Ring landed;
    int flying = 0;
    for (Tile tile; tiles.next(tile);) {
        u32 tokens[kGathers];
        for (int i = 0; i < kGathers; ++i) {
            const int place = tile.first + row + 16 * i;
            tokens[i] = place < tile.last ? left.slots[place] / left.active : ~0u;
        }
        for (int step = 0; step < steps; ++step) {
            barrier_wait(shared.empty(ring.stage), ring.parity ^ 1);
            if (thread == 0) {
                copy_weights(shared, ring.stage, weights, 0, [&](int half) { return at(tile, step, half); });
            }
            const u16* column = left.matrix + step * kDepth + chunk * 8;
#pragma unroll
            for (int i = 0; i < kGathers; ++i) {
                const bool wanted = tokens[i] != ~0u;
                const u16* source = column + (wanted ? static_cast<u64>(tokens[i]) * left.width : 0);
                gather(shared.left(ring.stage) + inside + 16 * i * kRowBytes, source, wanted);
            }
            gather_commit();
            ring.advance();
            if (++flying > kLag) {
                gather_wait<kLag>();
                async_proxy_fence();
                barrier_arrive(shared.full(landed.stage));
                landed.advance();
                --flying;
            }
        }
    }
    gather_wait<0>();
    async_proxy_fence();
    for (; flying > 0; --flying, landed.advance()) {
        barrier_arrive(shared.full(landed.stage));
    }
}

// A left operand whose rows are the places themselves: a matrix over (columns, places).
struct Contiguous {
    static constexpr int kProducers = 1;  // one arrival, for the expected bytes

    const TensorMap& matrix;
};

template <typename At>
__device__ __forceinline__ void produce(
    const Shared& shared, Tiles tiles, int steps, const Contiguous& left, const TensorMap& weights, At at) {
    if (thread_index() != 0) {
        return;
    }
    Ring ring;
    for (Tile tile; tiles.next(tile);) {
        for (int step = 0; step < steps; ++step, ring.advance()) {
            barrier_wait(shared.empty(ring.stage), ring.parity ^ 1);
            copy_weights(
                shared, ring.stage, weights, kLeftBytes, [&](int half) { return at(tile, step, half); });
            copy_box(shared.left(ring.stage), left.matrix, shared.full(ring.stage), {step * kDepth, tile.first, 0, 0});
        }
    }
}

// ---- consumers --------------------------------------------------------------------------------------------

// The descriptor of a tile in shared memory for wgmma. In units of 16 bytes: the address in bits 0-13, the leading offset
// in bits 16-29, the stride offset in bits 32-45; 1 in bits 62-63 selects the 128-byte swizzle.
//
// If rows run along the depth (K-major), eight rows are 1024 bytes, the stride offset; the leading offset is not used. If
// rows run across it, a chunk is 64 columns wide and 64 deep: a depth of eight is 1024 bytes, the stride offset, and the
// next 64 columns are one chunk further, the leading offset.
template <bool kAcross>
__device__ __forceinline__ u64 describe(u32 address) {
    constexpr u64 leading = kAcross ? kDepth * kRowBytes / 16 : 1;
    constexpr u64 stride = 8 * kRowBytes / 16;
    return static_cast<u64>(address >> 4 & 0x3fff) | leading << 16 | stride << 32 | u64{1} << 62;
}

// The distance to 16 further along the depth, in units of 16 bytes: within the row, or 16 rows on.
template <bool kAcross>
constexpr u64 kNext16 = (kAcross ? 16 * kRowBytes : 16 * 2) / 16;

// Tells the blocks that may write a stage that this warp no longer reads it.
__device__ __forceinline__ void release(const Shared& shared, int stage) {
    const u32 lane = thread_index() % 32;
    if (lane < kCluster) {
        barrier_arrive_at(shared.empty(stage), lane);
    }
}

// Computes every tile of this block, and calls epilogue(tile, sums). With kAcross, the weights are stored as
// [depth, columns], otherwise as [columns, depth].
template <bool kAcross, typename Epilogue>
__device__ __forceinline__ void consume(const Shared& shared, Tiles tiles, int steps, Epilogue epilogue) {
    const u32 rows = (thread_index() / kWarpgroup - 1) * 64 * kRowBytes;
    float sums[kColumns / 2];
    Ring ring;
    for (Tile tile; tiles.next(tile);) {
        int before = 0;
        for (int step = 0; step < steps; ++step) {
            barrier_wait(shared.full(ring.stage), ring.parity);
            const u64 left = describe<false>(shared.left(ring.stage) + rows);
            const u64 right = describe<kAcross>(shared.weights(ring.stage));
            wgmma_fence();
#pragma unroll
            for (int i = 0; i < kDepth / 16; ++i) {
                wgmma<kAcross>(sums, left + i * kNext16<false>, right + i * kNext16<kAcross>, step + i > 0);
            }
            wgmma_commit();
            wgmma_wait<1>();  // for the step before this one
            if (step > 0) {
                release(shared, before);
            }
            before = ring.stage;
            ring.advance();
        }
        wgmma_wait<0>();
        wgmma_settled(sums);
        release(shared, before);
        epilogue(tile, sums);
    }
}

// ---- the whole kernel -------------------------------------------------------------------------------------

// Runs one product: sums[place, column] over `steps` steps of depth. `at(tile, step, half)` returns where each half of a
// tile's weights is.
template <bool kAcross, typename Left, typename At, typename Epilogue>
__device__ __forceinline__ void multiply(
    const Tiles& tiles, int steps, const Left& left, const TensorMap& weights, At at, Epilogue epilogue) {
    const Shared shared = prepare(Left::kProducers);
    if (thread_index() < kWarpgroup) {
        give_registers<kProducerRegisters>();
        produce(shared, tiles, steps, left, weights, at);
    } else {
        take_registers<kConsumerRegisters>();
        consume<kAcross>(shared, tiles, steps, epilogue);
    }
    cluster_sync();  // a block that ends frees its barriers and stages, and its peer may still use them
}

}  // namespace moe
