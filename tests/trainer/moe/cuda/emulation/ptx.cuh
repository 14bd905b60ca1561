// The instructions of source/ptx.cuh for a CPU: what the PTX manual says that each one does, with liberties that
// make mistakes show. Threads are fibers, run in an order drawn from a seed, and always one warpgroup falls behind
// the others. Whatever a GPU may do late (copies, matrix products) is done as late as the program allows, or at
// once, as the run asks: a stage that is read before it is full, or written before it has been read, gives other
// numbers. A wait that can never
// end, a tensor core that reads what no fence has passed to it, an address outside: each ends the run with a
// message.
//
// What this cannot show: the device's timing; memory ordering weaker than one instruction after the other
// (other than the fence above); whether the manual was understood rightly; alignment rules of the assembler.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include <ucontext.h>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(threads, blocks)
#define __cluster_dims__(x, y, z)
#define __grid_constant__

namespace moe {

using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;

// Sizes and strides of a tensor, as the host would hand them to the driver. Mirrored in emulator.py.
struct TensorMap {
    const unsigned char* base;
    u64 sizes[4];
    u64 strides[3];  // in bytes, of the dimensions from the second on
    u32 box[4];
};

struct Chunk {
    u32 words[4];
};

struct Coordinates {
    int x0, x1, x2, x3;
};

namespace emulation {

constexpr u32 kSharedBytes = 227 * 1024;
constexpr u32 kBase = 1024;          // where dynamic shared memory begins on Hopper
constexpr u32 kBlockShift = 20;      // the block's rank in its cluster stands above an address
constexpr u32 kLineBytes = 16;

[[noreturn]] inline void fail(const std::string& what) { throw std::runtime_error(what); }

struct Barrier {
    int arrivals = 0;
    int pending = 0;
    long long bytes = 0;
    u32 phase = 0;

    void settle() {
        if (pending == 0 && bytes == 0) {
            phase ^= 1;
            pending = arrivals;
        }
        if (pending < 0) fail("a barrier had more arrivals than it was made for");
    }
};

struct Block {
    std::vector<unsigned char> shared = std::vector<unsigned char>(kBase + kSharedBytes);
    std::vector<int> unfenced = std::vector<int>((kBase + kSharedBytes) / kLineBytes, -1);
    std::map<u32, Barrier> barriers;
    u32 running = 0;  // threads that have not ended
};

// A point that a number of fibers reach before any goes on.
struct Meeting {
    u32 members = 0;
    u32 arrived = 0;
    u64 generation = 0;
};

struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    u32 rank = 0;
    u32 thread = 0;
    bool done = false;
    std::function<bool()> blocked;                       // unset: can run
    std::vector<std::function<void()>> gathers;          // not yet committed
    std::vector<std::vector<std::function<void()>>> gather_groups;
    std::vector<std::function<void()>> products;
    std::vector<std::vector<std::function<void()>>> product_groups;
};

struct Machine {
    bool late = false;
    u32 cluster = 1;
    u32 threads = 0;
    u32 first_block = 0;
    u32 grid = 0;
    std::mt19937 random;
    std::vector<Block> blocks;
    std::vector<Fiber> fibers;
    std::vector<Meeting> warps;
    std::vector<std::array<u32, 64>> exchange;  // two generations of a warp's 32 values
    Meeting everyone;
    std::vector<std::function<void()>> copies;  // that the copy engine has still to do
    Fiber* current = nullptr;
    ucontext_t scheduler;
    std::string failure;
};

inline Machine* machine = nullptr;

inline Fiber& self() { return *machine->current; }
inline Block& block() { return machine->blocks[self().rank]; }

inline void yield_until(std::function<bool()> ready) {
    Fiber& fiber = self();
    if (ready()) return;
    fiber.blocked = std::move(ready);
    swapcontext(&fiber.context, &machine->scheduler);
    if (!machine->failure.empty()) fail(machine->failure);
}

inline void meet(Meeting& meeting) {
    const u64 generation = meeting.generation;
    if (++meeting.arrived == meeting.members) {
        meeting.arrived = 0;
        ++meeting.generation;
        return;
    }
    yield_until([&meeting, generation] { return meeting.generation != generation; });
}

inline Meeting& own_warp() { return machine->warps[self().rank * (machine->threads / 32) + self().thread / 32]; }

// A block and an offset in it, from an address that may name the block.
inline std::pair<Block*, u32> resolve(u32 address, u32 bytes) {
    const u32 offset = address & ((1u << kBlockShift) - 1);
    const u32 rank = address >> kBlockShift;
    if (rank >= machine->blocks.size()) fail("an address names a block outside the cluster");
    if (offset < kBase || offset + bytes > kBase + kSharedBytes) fail("an address outside shared memory");
    if (machine->blocks[rank].running == 0) fail("an address in a block that has ended");
    return {&machine->blocks[rank], offset};
}

inline Barrier& barrier_at(u32 address) {
    auto [owner, offset] = resolve(address, 8);
    if (offset % 8) fail("a barrier is not aligned to 8 bytes");
    auto found = owner->barriers.find(offset);
    if (found == owner->barriers.end()) fail("a barrier that was never initialised");
    return found->second;
}

inline u32 swizzled(u32 offset) { return offset ^ (offset >> 7 & 7) << 4; }

// Writes through the asynchronous proxy.
inline void put(Block& owner, u32 offset, const unsigned char* source, u32 bytes) {
    std::memcpy(&owner.shared[offset], source, bytes);
    for (u32 at = offset; at < offset + bytes; at += kLineBytes) owner.unfenced[at / kLineBytes] = -1;
}

inline void copy_box_now(u32 rank, u32 destination, const TensorMap& map, u32 barrier, const int (&at)[4]) {
    auto [owner, offset] = resolve((destination & ((1u << kBlockShift) - 1)) | rank << kBlockShift, 128);
    if (offset % 1024) fail("a swizzled box must begin at a multiple of 1024");
    if (map.box[0] * 2 != 128) fail("a 128-byte swizzle needs boxes that are 128 bytes wide");
    u32 line = 0;
    for (u32 d3 = 0; d3 < map.box[3]; ++d3)
        for (u32 d2 = 0; d2 < map.box[2]; ++d2)
            for (u32 d1 = 0; d1 < map.box[1]; ++d1, ++line)
                for (u32 d0 = 0; d0 < map.box[0]; d0 += 8) {
                    unsigned char chunk[16] = {};
                    for (u32 i = 0; i < 8; ++i) {
                        const long long where[4] = {at[0] + d0 + i, at[1] + d1, at[2] + d2, at[3] + d3};
                        bool inside = true;
                        u64 from = where[0] * 2;
                        for (int d = 0; d < 4; ++d) {
                            inside &= where[d] >= 0 && static_cast<u64>(where[d]) < map.sizes[d];
                            if (d > 0) from += where[d] * map.strides[d - 1];
                        }
                        if (inside) std::memcpy(chunk + 2 * i, map.base + from, 2);
                    }
                    put(*owner, swizzled(offset + line * 128 + d0 * 2), chunk, 16);
                }
    Barrier& done = barrier_at((barrier & ((1u << kBlockShift) - 1)) | rank << kBlockShift);
    done.bytes -= line * 128;
    done.settle();
}

// One lane's sums of a wgmma, from descriptors.
struct Operand {
    u32 start, leading, stride;

    explicit Operand(u64 description) {
        start = (description & 0x3fff) << 4;
        leading = (description >> 16 & 0x3fff) << 4;
        stride = (description >> 32 & 0x3fff) << 4;
        if (description >> 62 != 1) fail("a descriptor that does not say 128-byte swizzle");
        if (description >> 49 & 7) fail("a descriptor with a base offset");
    }

    // Element of row or column `outer` at depth `inner` (below 16); across: `inner` counts the rows in memory.
    float at(Block& owner, u32 outer, u32 inner, bool across) const {
        const u32 linear = across ? start + outer / 64 * leading + outer % 64 * 2 + inner / 8 * stride + inner % 8 * 128
                                  : start + outer / 8 * stride + outer % 8 * 128 + inner * 2;
        const u32 offset = swizzled(linear);
        if (offset < kBase || offset + 2 > owner.shared.size()) fail("a descriptor outside shared memory");
        if (owner.unfenced[offset / kLineBytes] >= 0) fail("the tensor cores read what no proxy fence has passed");
        const u32 bits = static_cast<u32>(owner.shared[offset] | owner.shared[offset + 1] << 8) << 16;
        float value;
        std::memcpy(&value, &bits, 4);
        return value;
    }
};

inline void wgmma_now(Block& owner, u32 thread, float* acc, u64 a, u64 b, bool accumulate, bool across) {
    const Operand left(a);
    const Operand right(b);
    const u32 row = thread % 128 / 32 * 16 + thread % 32 / 4;
    float rows[2][16];
    for (u32 k = 0; k < 16; ++k) {
        rows[0][k] = left.at(owner, row, k, false);
        rows[1][k] = left.at(owner, row + 8, k, false);
    }
    for (u32 j = 0; j < 32; ++j)
        for (u32 c = 0; c < 2; ++c) {
            float sums[2] = {};
            for (u32 k = 0; k < 16; ++k) {
                const float value = right.at(owner, 8 * j + 2 * (thread % 4) + c, k, across);
                sums[0] += rows[0][k] * value;
                sums[1] += rows[1][k] * value;
            }
            for (u32 half = 0; half < 2; ++half) {
                float& sum = acc[4 * j + 2 * half + c];
                sum = accumulate ? sum + sums[half] : sums[half];
            }
        }
}

template <typename Groups>
void finish_groups(Groups& groups, std::size_t pending) {
    while (groups.size() > pending) {
        for (auto& operation : groups.front()) operation();
        groups.erase(groups.begin());
    }
}

}  // namespace emulation

inline u32 thread_index() { return emulation::self().thread; }
inline u32 block_index() { return emulation::machine->first_block + emulation::self().rank; }
inline u32 blocks_in_grid() { return emulation::machine->grid; }
inline u32 rank_in_cluster() { return emulation::self().rank; }
inline u32 shared_base() { return emulation::kBase | emulation::self().rank << emulation::kBlockShift; }

inline void cluster_sync() { emulation::meet(emulation::machine->everyone); }

inline u32 shuffle_xor(u32 value, int lanes) {
    using namespace emulation;
    Meeting& warp = own_warp();
    auto& values = machine->exchange[&warp - machine->warps.data()];
    const u32 generation = warp.generation & 1;
    const u32 lane = self().thread % 32;
    values[generation * 32 + lane] = value;
    meet(warp);
    return values[generation * 32 + (lane ^ lanes)];
}

inline void barrier_init(u32 barrier, u32 arrivals) {
    using namespace emulation;
    auto [owner, offset] = resolve(barrier, 8);
    Barrier fresh;
    fresh.arrivals = fresh.pending = static_cast<int>(arrivals);
    owner->barriers[offset] = fresh;
}

inline void barrier_init_fence() {}

inline void barrier_arrive(u32 barrier) {
    emulation::Barrier& found = emulation::barrier_at(barrier);
    --found.pending;
    found.settle();
}

inline void barrier_arrive_at(u32 barrier, u32 rank) {
    barrier_arrive((barrier & ((1u << emulation::kBlockShift) - 1)) | rank << emulation::kBlockShift);
}

inline void barrier_expect(u32 barrier, u32 bytes) {
    emulation::Barrier& found = emulation::barrier_at(barrier);
    found.bytes += bytes;
    --found.pending;
    found.settle();
}

inline void barrier_wait(u32 barrier, u32 parity) {
    emulation::Barrier& found = emulation::barrier_at(barrier);
    emulation::yield_until([&found, parity] { return found.phase != parity; });
}

inline void gather(u32 destination, const void* source, bool wanted) {
    using namespace emulation;
    if (reinterpret_cast<std::uintptr_t>(source) % 16) fail("a gather from an address that is not aligned to 16");
    auto [owner, offset] = resolve(destination, 16);
    if (offset % 16) fail("a gather to an address that is not aligned to 16");
    const int writer = static_cast<int>(self().thread);
    auto copy = [owner = owner, offset = offset, source, wanted, writer] {
        if (wanted) {
            std::memcpy(&owner->shared[offset], source, 16);
        } else {
            std::memset(&owner->shared[offset], 0, 16);
        }
        owner->unfenced[offset / kLineBytes] = writer;
    };
    if (!machine->late) copy();
    self().gathers.push_back(machine->late ? std::function<void()>(copy) : [] {});
}

inline void gather_commit() {
    auto& fiber = emulation::self();
    fiber.gather_groups.push_back(std::move(fiber.gathers));
    fiber.gathers.clear();
}

template <int kPending>
void gather_wait() {
    emulation::finish_groups(emulation::self().gather_groups, kPending);
}

inline void async_proxy_fence() {
    for (int& writer : emulation::block().unfenced)
        if (writer == static_cast<int>(emulation::self().thread)) writer = -1;
}

inline void copy_box_to(u32 destination, const TensorMap& map, u32 barrier, Coordinates at, u16 ranks) {
    using namespace emulation;
    for (u32 rank = 0; rank < machine->cluster; ++rank) {
        if (!(ranks >> rank & 1)) continue;
        auto copy = [=, &map] {
            const int where[4] = {at.x0, at.x1, at.x2, at.x3};
            copy_box_now(rank, destination, map, barrier, where);
        };
        if (machine->late) {
            machine->copies.push_back(copy);
        } else {
            copy();
        }
    }
}

inline void copy_box(u32 destination, const TensorMap& map, u32 barrier, Coordinates at) {
    copy_box_to(destination, map, barrier, at, static_cast<u16>(1u << emulation::self().rank));
}

inline void store_chunk(u16* destination, const Chunk& chunk) {
    if (reinterpret_cast<std::uintptr_t>(destination) % 16) emulation::fail("a store that is not aligned to 16");
    std::memcpy(destination, &chunk, 16);
}

inline Chunk load_chunk(const u16* source) {
    if (reinterpret_cast<std::uintptr_t>(source) % 16) emulation::fail("a load that is not aligned to 16");
    Chunk chunk;
    std::memcpy(&chunk, source, 16);
    return chunk;
}

inline void wgmma_fence() {}
inline void wgmma_settled(float (&)[128]) {}

template <bool kAcross>
void wgmma(float (&acc)[128], u64 a, u64 b, bool accumulate) {
    using namespace emulation;
    auto product = [&owner = block(), thread = self().thread, sums = &acc[0], a, b, accumulate] {
        wgmma_now(owner, thread, sums, a, b, accumulate, kAcross);
    };
    if (!machine->late) product();
    self().products.push_back(machine->late ? std::function<void()>(product) : [] {});
}

inline void wgmma_commit() {
    auto& fiber = emulation::self();
    fiber.product_groups.push_back(std::move(fiber.products));
    fiber.products.clear();
}

template <int kPending>
void wgmma_wait() {
    emulation::finish_groups(emulation::self().product_groups, kPending);
    emulation::meet(emulation::own_warp());  // .sync: no lane goes on before its warp's products are there
}

template <int kRegisters>
void give_registers() {}
template <int kRegisters>
void take_registers() {}

inline float float_of(u32 bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

inline u32 bits_of(float value) {
    u32 bits;
    std::memcpy(&bits, &value, 4);
    return bits;
}

inline u32 rounded(float value) {
    const u32 bits = bits_of(value);
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

inline u32 pack(float low, float high) { return rounded(low) | rounded(high) << 16; }
inline float low_of(u32 word) { return float_of(word << 16); }
inline float high_of(u32 word) { return float_of(word & 0xffff0000u); }
inline float sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }

namespace emulation {

// Runs the fibers of one cluster until all are done; throws with the reason if that can't be.
void run_cluster(Machine& now, const std::function<void()>& kernel);

}  // namespace emulation
}  // namespace moe
