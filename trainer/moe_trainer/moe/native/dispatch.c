/* The slots of a batch ordered by in-layer expert: a counting sort, for there are few of them. */

#include <stdint.h>

/* Numbers of in-layer experts are 0 to `experts`, which stands for a slot that was dropped. `offsets` has room for
   experts + 2 numbers, all 0; its last is used up. */
void order_slots(const int64_t *chosen, int64_t count, int64_t experts, int32_t *slots, int32_t *places,
                 int32_t *offsets) {
    for (int64_t slot = 0; slot < count; slot++) offsets[chosen[slot] + 1]++;
    for (int64_t e = 0; e <= experts; e++) offsets[e + 1] += offsets[e];
    for (int64_t slot = 0; slot < count; slot++) {
        const int32_t place = offsets[chosen[slot]]++;
        places[slot] = place;
        slots[place] = (int32_t)slot;
    }
    for (int64_t e = experts; e > 0; e--) offsets[e] = offsets[e - 1];
    offsets[0] = 0;
}
