// Runs the kernels on the CPU: compiled with the folders of the emulated ptx.cuh and of the kernels' sources,
// and called from Python with the arguments that a launch on a GPU would get.
#include <ptx.cuh>

#include <algorithm>
#include <tuple>
#include <utility>

#include "up.cu"

#include "down.cu"

#include "d_hidden.cu"

namespace moe::emulation {

constexpr std::size_t kStackBytes = 64 * 1024;
constexpr u32 kLateCopy = 8;  // one in so many turns goes to the copy engine
constexpr u32 kLongestDelay = 2000;  // in rounds

const std::function<void()>* body = nullptr;

void enter() {
    try {
        (*body)();
    } catch (const std::exception& error) {
        if (machine->failure.empty()) machine->failure = error.what();
    }
    self().done = true;
    --block().running;
    swapcontext(&self().context, &machine->scheduler);
}

void make_fibers(Machine& now) {
    now.fibers.resize(now.cluster * now.threads);
    for (u32 i = 0; i < now.fibers.size(); ++i) {
        Fiber& fiber = now.fibers[i];
        fiber.rank = i / now.threads;
        fiber.thread = i % now.threads;
        fiber.stack = std::make_unique<char[]>(kStackBytes);
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.get();
        fiber.context.uc_stack.ss_size = kStackBytes;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, enter, 0);
    }
}

bool copy_one(Machine& now) {
    if (now.copies.empty()) return false;
    const std::size_t chosen = now.random() % now.copies.size();
    auto copy = std::move(now.copies[chosen]);
    now.copies.erase(now.copies.begin() + static_cast<long>(chosen));
    try {
        copy();
    } catch (const std::exception& error) {
        if (now.failure.empty()) now.failure = error.what();
    }
    return true;
}

// Who has no turn for a while: one warpgroup falls behind all others, until they wait for it or its time is over.
struct Delay {
    u32 group = 0;
    u32 rounds = 0;

    void draw(Machine& now) {
        if (rounds == 0) {
            rounds = 1 + now.random() % kLongestDelay;
            group = now.random() % (now.fibers.size() / kWarpgroup);
        }
        --rounds;
    }
    bool holds(u32 fiber) const { return rounds > 0 && fiber / kWarpgroup == group; }
};

void run_cluster(Machine& now, const std::function<void()>& kernel) {
    body = &kernel;
    machine = &now;
    make_fibers(now);
    std::vector<u32> order(now.fibers.size());
    for (u32 i = 0; i < order.size(); ++i) order[i] = i;
    Delay delay;
    for (u32 left = order.size(); left > 0;) {
        std::shuffle(order.begin(), order.end(), now.random);
        delay.draw(now);
        bool moved = false;
        for (u32 i : order) {
            Fiber& fiber = now.fibers[i];
            if (now.random() % kLateCopy == 0) moved |= copy_one(now);
            if (fiber.done || delay.holds(i)) continue;
            if (now.failure.empty() && fiber.blocked && !fiber.blocked()) continue;
            fiber.blocked = nullptr;
            now.current = &fiber;
            swapcontext(&now.scheduler, &fiber.context);
            moved = true;
            left -= fiber.done;
        }
        if (moved || copy_one(now)) continue;
        if (delay.rounds == 0) now.failure = "every thread waits for another: a deadlock";
        delay.rounds = 0;
    }
    if (now.failure.empty() && !now.copies.empty()) now.failure = "a block ended while boxes were still being copied";
}

template <typename Argument>
std::remove_reference_t<Argument>& unpack(void* pointer) {
    return *static_cast<std::remove_reference_t<Argument>*>(pointer);
}

template <typename... Arguments, std::size_t... kIndex>
std::function<void()> call(void (*kernel)(Arguments...), void** arguments, std::index_sequence<kIndex...>) {
    return [=] { kernel(unpack<Arguments>(arguments[kIndex])...); };
}

template <typename... Arguments>
std::function<void()> call(void (*kernel)(Arguments...), void** arguments) {
    return call(kernel, arguments, std::index_sequence_for<Arguments...>());
}

std::function<void()> find(const std::string& name, void** arguments) {
    if (name == "up") return call(up, arguments);
    if (name == "down") return call(down, arguments);
    if (name == "d_hidden") return call(d_hidden, arguments);
    fail("no kernel named " + name);
}

void launch(const std::string& name, u32 grid, u32 seed, bool late, void** arguments) {
    const auto kernel = find(name, arguments);
    for (u32 first = 0; first < grid; first += kCluster) {
        Machine now;
        now.late = late;
        now.cluster = kCluster;
        now.threads = kThreads;
        now.first_block = first;
        now.grid = grid;
        now.random.seed(seed + first);
        now.blocks.resize(kCluster);
        for (Block& block : now.blocks) block.running = kThreads;
        now.warps.resize(kCluster * kThreads / 32);
        for (Meeting& warp : now.warps) warp.members = 32;
        now.exchange.resize(now.warps.size());
        now.everyone.members = kCluster * kThreads;
        run_cluster(now, kernel);
        if (!now.failure.empty()) fail(now.failure);
    }
}

}  // namespace moe::emulation

// Returns 0, or 1 with the reason in `message`.
extern "C" int emulate(
    const char* name, unsigned grid, unsigned seed, int late, void** arguments, char* message, std::size_t room) {
    try {
        moe::emulation::launch(name, grid, seed, late != 0, arguments);
        return 0;
    } catch (const std::exception& error) {
        std::snprintf(message, room, "%s", error.what());
        return 1;
    }
}
