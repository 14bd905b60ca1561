/* The router's two passes, token by token: what plain_router.py computes, in one pass over the logits each.

   Rows of `experts` logits lie one after the other; a group's tokens too. One thread, fp32. */

#include <math.h>

#include "exponential.h"

/* Added to a sum of sigmoids before dividing by it, as in plain_router.py. */
static const float EPSILON = 1e-20f;

typedef struct {
    int64_t groups, length, experts, active; /* sequences, tokens of one, in-layer experts, of which each token's */
    int32_t softmax, renormalise;            /* scores are softmax or sigmoid; a token's weights sum to 1 */
    float scale;
} Router;

static float largest(const float *restrict row, int64_t count) {
    float found = -INFINITY;
#pragma omp simd reduction(max : found)
    for (int64_t e = 0; e < count; e++) found = row[e] > found ? row[e] : found;
    return found;
}

static float sum(const float *restrict row, int64_t count) {
    float found = 0;
#pragma omp simd reduction(+ : found)
    for (int64_t e = 0; e < count; e++) found += row[e];
    return found;
}

/* e^(logit - shift); exactly 0 where it is nothing beside the largest. */
static void powers(const float *restrict logits, float shift, float *restrict found, int64_t count) {
#pragma omp simd
    for (int64_t e = 0; e < count; e++) {
        const float x = logits[e] - shift;
        const float power = exponential(x > -86.0f ? x : -86.0f);
        found[e] = x > -86.0f ? power : 0.0f;
    }
}

static void sigmoids(const float *restrict logits, float *restrict found, int64_t count) {
#pragma omp simd
    for (int64_t e = 0; e < count; e++) found[e] = sigmoid(logits[e]);
}

static void multiply(float *restrict row, float factor, int64_t count) {
#pragma omp simd
    for (int64_t e = 0; e < count; e++) row[e] *= factor;
}

/* A score and its place in one number, so that one maximum finds both: a double has 29 bits more than a float, and of
   equal scores the first place makes the larger key. */
static void mark(const float *restrict scores, double *restrict keys, int64_t count) {
#pragma omp simd
    for (int64_t e = 0; e < count; e++) {
        double key = scores[e];
        int64_t bits;
        memcpy(&bits, &key, sizeof bits);
        bits += scores[e] < 0 ? e : count - 1 - e;
        memcpy(&keys[e], &bits, sizeof bits);
    }
}

/* The places of the largest keys, which are used up. Where there are NaN, some valid places. */
static void choose(double *restrict keys, const Router *router, int64_t *restrict chosen) {
    const int64_t last = router->experts - 1;
    for (int64_t k = 0; k < router->active; k++) {
        double best = -INFINITY;
#pragma omp simd reduction(max : best)
        for (int64_t e = 0; e <= last; e++) best = keys[e] > best ? keys[e] : best;
        int64_t place;
        memcpy(&place, &best, sizeof place);
        place &= (1 << 29) - 1;
        chosen[k] = best < 0 && best > -INFINITY ? place : last - place;
        keys[chosen[k]] = -INFINITY;
    }
}

static void weigh(const float *restrict scores, const Router *router, const int64_t *restrict chosen,
                  float *restrict weights) {
    float total = 0;
    for (int64_t k = 0; k < router->active; k++) total += weights[k] = scores[chosen[k]];
    const float factor = router->renormalise ? router->scale / (total + EPSILON) : router->scale;
    for (int64_t k = 0; k < router->active; k++) weights[k] *= factor;
}

/* Returns the sum of the logits' squares. `room` has place for 4 * experts numbers, `means` for groups * experts, all 0. */
double route(const float *logits, const float *bias, const Router *router, float *room, int64_t *chosen,
             float *weights, int64_t *counts, double *means, float *logsumexp) {
    const int64_t experts = router->experts, active = router->active;
    float *restrict scores = room, *restrict biased = room + experts;
    double *restrict keys = (double *)(room + 2 * experts);
    double squares = 0;
    for (int64_t token = 0; token < router->groups * router->length; token++) {
        const float *row = logits + token * experts;
        const int64_t group = token / router->length;
        const float highest = largest(row, experts);
        powers(row, highest, scores, experts);
        const float total = sum(scores, experts);
        logsumexp[token] = logf(total) + highest;
        float share = 1.0f / total;
        if (router->softmax) {
            multiply(scores, share, experts);
            share = 1.0f;
        } else {
            sigmoids(row, scores, experts);
            share = 1.0f / (sum(scores, experts) + EPSILON);
        }
        double *restrict mean = means + group * experts;
        float square = 0;
#pragma omp simd reduction(+ : square)
        for (int64_t e = 0; e < experts; e++) {
            square += row[e] * row[e];
            mean[e] += scores[e] * share;
            biased[e] = bias ? scores[e] + bias[e] : scores[e];
        }
        squares += square;
        mark(biased, keys, experts);
        choose(keys, router, chosen + token * active);
        weigh(scores, router, chosen + token * active, weights + token * active);
        for (int64_t k = 0; k < active; k++) counts[group * experts + chosen[token * active + k]]++;
    }
    return squares;
}

/* Adds the gradients of a token's chosen scores by its weights. */
static void add_chosen(const float *restrict scores, const Router *router, const int32_t *restrict chosen,
                       const float *restrict dweights, float *restrict dscores) {
    float total = 0, inner = 0;
    for (int64_t k = 0; k < router->active; k++) total += scores[chosen[k]];
    total += EPSILON;
    if (router->renormalise)
        for (int64_t k = 0; k < router->active; k++) inner += dweights[k] * scores[chosen[k]] / total;
    const float factor = router->renormalise ? router->scale / total : router->scale;
    for (int64_t k = 0; k < router->active; k++) dscores[chosen[k]] += factor * (dweights[k] - inner);
}

/* Of each gradient that is NULL the loss does not depend. `room` has place for 2 * experts numbers. */
void route_backward(const float *logits, const int32_t *chosen, const float *logsumexp, const float *dweights,
                    const float *dmeans, const float *dlogsumexp, const Router *router, float *room,
                    float *restrict dlogits) {
    const int64_t experts = router->experts, active = router->active;
    float *restrict scores = room, *restrict dscores = room + experts;
    for (int64_t token = 0; token < router->groups * router->length; token++) {
        const float *row = logits + token * experts;
        const float *dmean = dmeans ? dmeans + token / router->length * experts : 0;
        const float outer = dlogsumexp ? dlogsumexp[token] : 0.0f;
        float *restrict found = dlogits + token * experts;
        if (router->softmax) powers(row, logsumexp[token], scores, experts);
        else sigmoids(row, scores, experts);
        float share = 1.0f / router->length, shift = 0;
        if (dmean && !router->softmax) { /* of the scores' shares in their sum */
            const float total = sum(scores, experts) + EPSILON;
#pragma omp simd reduction(+ : shift)
            for (int64_t e = 0; e < experts; e++) shift += dmean[e] * scores[e];
            shift /= total;
            share /= total;
        }
#pragma omp simd
        for (int64_t e = 0; e < experts; e++) dscores[e] = dmean ? share * (dmean[e] - shift) : 0.0f;
        if (dweights) add_chosen(scores, router, chosen + token * active, dweights + token * active, dscores);
        if (router->softmax) {
            float inner = 0;
#pragma omp simd reduction(+ : inner)
            for (int64_t e = 0; e < experts; e++) inner += dscores[e] * scores[e];
#pragma omp simd
            for (int64_t e = 0; e < experts; e++) found[e] = scores[e] * (dscores[e] - inner + outer);
        } else {
#pragma omp simd
            for (int64_t e = 0; e < experts; e++) dscores[e] *= scores[e] * (1.0f - scores[e]);
            powers(row, logsumexp[token], scores, experts);
#pragma omp simd
            for (int64_t e = 0; e < experts; e++) found[e] = dscores[e] + outer * scores[e];
        }
    }
}
