// The table of calls that wait for answers, of examples/common: ids, order, times, ends.
#include "test.h"

#include "../examples/common/calls.h"

enum { ASKED = 64 };

// Callers that note how their call ended.
typedef struct caller {
    uint64_t call;
    uint32_t id;
    int ends, err;
    char answer[32];
    uint64_t ended_ms;
} caller;

static caller callers[ASKED];
static uint64_t now_ms; // the tests' clock

static void ended(void *user, int err, const void *answer, size_t len)
{
    caller *c = (caller *)user;
    c->ends++;
    c->err = err;
    c->ended_ms = now_ms;
    CHECK(len < sizeof c->answer);
    if (len) memcpy(c->answer, answer, len);
    c->answer[len] = 0;
}

static calls *table(size_t max, size_t late_max, int late_ms, uint32_t id_max)
{
    calls_opts o = {0};
    calls *t = NULL;
    memset(callers, 0, sizeof callers);
    now_ms = 1000000;
    o.max = max;
    o.late_max = late_max;
    o.late_ms = late_ms;
    o.id_max = id_max;
    CHECK_OK(calls_create(&t, &o));
    return t;
}

static uint32_t ask(calls *t, int who, int timeout_ms)
{
    caller *c = &callers[who];
    memset(c, 0, sizeof *c);
    CHECK_OK(calls_add(t, &c->call, &c->id, now_ms, timeout_ms, ended, c));
    return c->id;
}

static int answer(calls *t, uint64_t id, const char *text)
{
    return calls_finish(t, id, 0, text, strlen(text));
}

static void later(calls *t, int ms)
{
    now_ms += (uint64_t)ms;
    calls_expire(t, now_ms);
}

static void check_ended(int who, int err, const char *text)
{
    CHECK_EQ(1, callers[who].ends);
    CHECK_ERR(err, callers[who].err);
    CHECK_STR(text, callers[who].answer);
}

// Every call that was added is accounted for.
static void over(calls *t)
{
    calls_stats s = calls_get_stats(t);
    CHECK_EQ(s.added, s.answered + s.timed_out + s.cancelled + s.failed + s.waiting);
    calls_destroy(t);
}

//================================================================================================
// Answers
//================================================================================================

TEST(calls, answers_in_any_order_reach_their_callers)
{
    calls *t = table(0, 0, 0, 0);
    CHECK_EQ(1, ask(t, 0, 1000));
    CHECK_EQ(2, ask(t, 1, 1000));
    CHECK_EQ(3, ask(t, 2, 1000));
    CHECK_OK(answer(t, 3, "three"));
    CHECK_OK(answer(t, 1, "one"));
    CHECK_EQ(0, callers[1].ends);
    CHECK_OK(answer(t, 2, "two"));
    check_ended(0, 0, "one");
    check_ended(1, 0, "two");
    check_ended(2, 0, "three");
    CHECK_EQ(0, calls_get_stats(t).waiting);
    over(t);
}

TEST(calls, one_that_is_never_answered_times_out_alone)
{
    calls *t = table(0, 0, 5000, 0);
    for (int i = 0; i < 3; i++) ask(t, i, 1000);
    CHECK_OK(answer(t, 1, "a"));
    CHECK_OK(answer(t, 3, "c"));
    later(t, 999);
    CHECK_EQ(0, callers[1].ends);
    later(t, 1 + CALLS_TICK_MS);
    check_ended(0, 0, "a");
    check_ended(1, NETIO_ETIMEDOUT, "");
    check_ended(2, 0, "c");

    CHECK_ERR(NETIO_ENOENT, answer(t, 2, "late")); // discarded
    check_ended(1, NETIO_ETIMEDOUT, "");
    CHECK_EQ(1, calls_get_stats(t).late);
    CHECK_EQ(0, calls_get_stats(t).unknown);
    over(t);
}

TEST(calls, answers_to_nothing_are_counted_and_ignored)
{
    static const uint64_t strange[] = {0, 2, 7, 16, 17, 4294967295u, 4294967296u, UINT64_MAX};
    calls *t = table(8, 8, 0, 0);
    ask(t, 0, 1000);
    for (size_t i = 0; i < sizeof strange / sizeof *strange; i++)
        CHECK_ERR(NETIO_ENOENT, answer(t, strange[i], "?"));
    CHECK_EQ(sizeof strange / sizeof *strange, calls_get_stats(t).unknown);
    CHECK_EQ(0, callers[0].ends);
    CHECK_OK(answer(t, 1, "yes"));
    CHECK_ERR(NETIO_ENOENT, answer(t, 1, "again"));
    CHECK_ERR(NETIO_ENOENT, answer(t, 1, "and again"));
    CHECK_EQ(2, calls_get_stats(t).duplicate);
    check_ended(0, 0, "yes");
    over(t);
}

TEST(calls, a_request_that_could_not_be_sent_fails_alone)
{
    calls *t = table(0, 0, 0, 0);
    ask(t, 0, 1000);
    ask(t, 1, 1000);
    CHECK_OK(calls_finish(t, callers[0].id, NETIO_ENOBUFS, NULL, 0));
    check_ended(0, NETIO_ENOBUFS, "");
    CHECK_EQ(0, callers[1].ends);
    CHECK_EQ(1, calls_get_stats(t).failed);
    over(t); // cancels the other
    check_ended(1, NETIO_ECANCELED, "");
}

//================================================================================================
// Ids
//================================================================================================

TEST(calls, ids_wrap_around_past_those_in_use)
{
    calls *t = table(3, 1, -1, 11); // of 1 to 11 the first 8 are used
    uint32_t held = ask(t, 0, -1);
    CHECK_EQ(1, held);
    unsigned seen = 0;
    uint32_t last = 0;
    for (int i = 0; i < 1000; i++) {
        uint32_t a = ask(t, 1, 1000), b = ask(t, 2, 1000);
        CHECK(a != held && b != held && a != b);
        CHECK(a >= 1 && a <= 8 && b >= 1 && b <= 8);
        CHECK(a != last); // the one that ended last does not come first
        seen |= 1u << a | 1u << b;
        CHECK_OK(answer(t, b, "b"));
        CHECK_OK(answer(t, a, "a"));
        last = a;
    }
    CHECK_EQ(0x1DC, seen); // entry 0, which has 1 and 5, is held: 2, 3, 4, 6, 7, 8
    CHECK_OK(answer(t, held, "at last"));
    check_ended(0, 0, "at last");
    over(t);
}

TEST(calls, ids_wrap_around_at_the_largest)
{
    calls *t = table(1, 1, -1, UINT32_MAX);
    t->entries[0].call = 4294967293u - 2; // as after years: the next of it is 4294967293
    t->entries[1].call = 4294967294u - 2;
    CHECK_EQ(4294967293u, ask(t, 0, 10));
    CHECK_OK(answer(t, 4294967293u, ""));
    CHECK_EQ(4294967294u, ask(t, 0, 10));
    CHECK_OK(answer(t, 4294967294u, ""));
    CHECK_EQ(1, ask(t, 0, 10)); // 4294967295 is no multiple of two
    CHECK(callers[0].call == 4294967295u);
    CHECK_OK(answer(t, 1, ""));
    CHECK_EQ(2, ask(t, 0, 10));
    CHECK_OK(answer(t, 2, ""));
    over(t);
}

TEST(calls, an_id_rests_while_its_answer_may_be_late)
{
    calls *t = table(2, 2, 5000, 4); // four ids in all
    ask(t, 0, 100);
    ask(t, 1, 100);
    later(t, 100 + CALLS_TICK_MS);
    check_ended(0, NETIO_ETIMEDOUT, "");
    uint64_t at = now_ms;
    CHECK_EQ(3, ask(t, 2, 60000));
    CHECK_EQ(4, ask(t, 3, 60000));
    CHECK_OK(answer(t, 3, ""));
    CHECK_OK(answer(t, 4, ""));
    CHECK_EQ(3, ask(t, 2, 60000)); // not 1 or 2
    CHECK_EQ(4, ask(t, 3, 60000));
    CHECK_OK(answer(t, 3, ""));
    CHECK_ERR(NETIO_ENOENT, answer(t, 2, "late")); // that is over then
    CHECK_EQ(3, ask(t, 2, 60000));
    CHECK_OK(answer(t, 3, ""));
    CHECK_EQ(2, ask(t, 2, 60000));
    CHECK_OK(answer(t, 2, ""));

    now_ms = at + 4999;
    CHECK_EQ(3, ask(t, 2, 60000));
    CHECK_OK(answer(t, 3, ""));
    CHECK_EQ(2, ask(t, 2, 60000));
    CHECK_OK(answer(t, 2, ""));
    now_ms = at + 5000; // 1 has rested enough
    CHECK_EQ(3, ask(t, 2, 60000));
    CHECK_OK(answer(t, 3, ""));
    CHECK_EQ(2, ask(t, 2, 60000));
    CHECK_OK(answer(t, 2, ""));
    CHECK_EQ(1, ask(t, 2, 60000));
    over(t);
}

TEST(calls, a_full_table_is_busy)
{
    calls *t = table(2, 1, 5000, 0);
    uint64_t call = 0;
    uint32_t id = 77;
    ask(t, 0, 100);
    ask(t, 1, 100);
    CHECK_ERR(NETIO_EBUSY, calls_add(t, &call, &id, now_ms, 100, ended, &callers[2]));
    CHECK_EQ(77, id);
    later(t, 200); // two ids rest, so one is left
    ask(t, 2, 100);
    CHECK_ERR(NETIO_EBUSY, calls_add(t, &call, &id, now_ms, 100, ended, &callers[3]));
    later(t, 200);
    CHECK_ERR(NETIO_EBUSY, calls_add(t, &call, &id, now_ms, 100, ended, &callers[3]));
    CHECK_EQ(3, calls_get_stats(t).refused);
    CHECK_EQ(3, calls_get_stats(t).added);
    now_ms += 5000;
    ask(t, 3, 100);
    CHECK_EQ(0, callers[3].ends);
    over(t);
}

//================================================================================================
// Ends
//================================================================================================

TEST(calls, a_lost_connection_fails_all_that_wait)
{
    calls *t = table(8, 8, 60000, 16);
    for (int i = 0; i < 8; i++) ask(t, i, i % 2 ? -1 : 100 << i);
    CHECK_OK(answer(t, 4, "in time"));
    calls_fail(t, NETIO_ECONNRESET);
    for (int i = 0; i < 8; i++) {
        if (i != 3) check_ended(i, NETIO_ECONNRESET, "");
    }
    check_ended(3, 0, "in time");
    CHECK_EQ(7, calls_get_stats(t).failed);
    CHECK_EQ(-1, calls_next(t, now_ms));
    later(t, 60000);
    for (int i = 0; i < 8; i++) CHECK_EQ(1, callers[i].ends);
    for (int i = 0; i < 8; i++) ask(t, i, 100); // no id rests
    calls_fail(t, NETIO_ETIMEDOUT);
    for (int i = 0; i < 8; i++) check_ended(i, NETIO_ETIMEDOUT, "");
    for (int i = 0; i < 8; i++) ask(t, i, 100);
    over(t);
}

TEST(calls, a_cancelled_one_is_not_called)
{
    calls *t = table(4, 4, 1000, 0);
    ask(t, 0, 100);
    ask(t, 1, 100);
    CHECK_OK(calls_cancel(t, callers[0].call, now_ms));
    CHECK_ERR(NETIO_ESTALE, calls_cancel(t, callers[0].call, now_ms));
    CHECK_ERR(NETIO_ENOENT, answer(t, callers[0].id, "late"));
    CHECK_EQ(1, calls_get_stats(t).late);
    CHECK_OK(answer(t, callers[1].id, "yes"));
    CHECK_ERR(NETIO_ESTALE, calls_cancel(t, callers[1].call, now_ms));
    CHECK_ERR(NETIO_ESTALE, calls_cancel(t, 0, now_ms));
    CHECK_ERR(NETIO_ESTALE, calls_cancel(t, 5, now_ms)); // to come
    CHECK_ERR(NETIO_ESTALE, calls_cancel(t, UINT64_MAX, now_ms));
    later(t, 10000);
    CHECK_EQ(0, callers[0].ends);
    CHECK_EQ(1, calls_get_stats(t).cancelled);
    over(t);
}

TEST(calls, a_number_of_an_ended_call_never_means_another)
{
    calls *t = table(1, 1, -1, 2); // the same two ids all the time
    uint64_t old[20];
    for (int i = 0; i < 20; i++) {
        ask(t, 0, 100);
        old[i] = callers[0].call;
        for (int k = 0; k < i; k++) CHECK_ERR(NETIO_ESTALE, calls_cancel(t, old[k], now_ms));
        CHECK_OK(answer(t, callers[0].id, "yes"));
        check_ended(0, 0, "yes");
    }
    over(t);
}

TEST(calls, the_rest_is_cancelled_when_it_is_destroyed)
{
    calls *t = table(4, 0, 0, 0);
    for (int i = 0; i < 4; i++) ask(t, i, i == 0 ? -1 : 1000);
    calls_destroy(t);
    for (int i = 0; i < 4; i++) check_ended(i, NETIO_ECANCELED, "");
    calls_destroy(NULL);
}

// What `done` may do: one of these with the table.
static struct {
    calls *t;
    int what, runs, err;
    uint64_t other;
    uint32_t other_id;
} meddler;

enum { ADDS, FINISHES, CANCELS, FAILS, EXPIRES, MEDDLINGS };

static void meddle(void *user, int err, const void *answer_, size_t len)
{
    (void)user;
    (void)answer_;
    (void)len;
    meddler.runs++;
    meddler.err = err;
    if (meddler.what == ADDS && err != NETIO_ECANCELED) ask(meddler.t, 10 + meddler.runs, 5000);
    if (meddler.what == FINISHES) CHECK_OK(answer(meddler.t, meddler.other_id, "done"));
    if (meddler.what == CANCELS) CHECK_OK(calls_cancel(meddler.t, meddler.other, now_ms));
    if (meddler.what == FAILS) calls_fail(meddler.t, NETIO_EPIPE);
    if (meddler.what == EXPIRES) calls_expire(meddler.t, now_ms + 100000);
}

TEST(calls, whoever_is_called_may_call_the_table)
{
    for (int what = 0; what < MEDDLINGS; what++) {
        for (int how = 0; how < 4; how++) { // how the meddler's own call ends
            uint32_t id = 0;
            calls *t = table(32, 0, 0, 0);
            memset(&meddler, 0, sizeof meddler);
            meddler.t = t;
            meddler.what = what;
            CHECK_OK(calls_add(t, NULL, &id, now_ms, 100, meddle, NULL));
            meddler.other_id = ask(t, 0, 100); // would end in the same breath
            meddler.other = callers[0].call;
            ask(t, 1, 100);
            ask(t, 2, 50000);
            if (how == 0) CHECK_OK(answer(t, id, ""));
            if (how == 1) later(t, 200);
            if (how == 2) calls_fail(t, NETIO_ECONNRESET);
            if (how == 3) calls_destroy(t);
            else over(t);
            CHECK_EQ(1, meddler.runs);
            CHECK_EQ(what == CANCELS ? 0 : 1, callers[0].ends);
            if (what == FINISHES) check_ended(0, 0, "done");
            CHECK_EQ(1, callers[1].ends);
            CHECK_EQ(1, callers[2].ends);
            if (what == ADDS && how < 3) CHECK_EQ(1, callers[11].ends);
        }
    }
}

static void again(void *user, int err, const void *answer_, size_t len)
{
    calls *t = (calls *)user;
    uint32_t id;
    (void)answer_;
    (void)len;
    meddler.runs++;
    if (calls_add(t, NULL, &id, now_ms, 0, again, t) < 0) meddler.err = err;
}

TEST(calls, those_that_are_added_meanwhile_belong_to_the_next_connection)
{
    calls *t = table(4, 4, -1, 0);
    uint32_t id;
    memset(&meddler, 0, sizeof meddler);
    for (int i = 0; i < 4; i++) CHECK_OK(calls_add(t, NULL, &id, now_ms, 0, again, t));
    calls_fail(t, NETIO_ECONNRESET);
    CHECK_EQ(4, meddler.runs); // not for ever
    CHECK_EQ(4, calls_get_stats(t).waiting);
    later(t, CALLS_TICK_MS);
    CHECK_EQ(8, meddler.runs);
    CHECK_EQ(4, calls_get_stats(t).waiting);
    calls_destroy(t); // nothing is added any more
    CHECK_EQ(12, meddler.runs);
    CHECK_ERR(NETIO_ECANCELED, meddler.err);
}

//================================================================================================
// Time
//================================================================================================

TEST(calls, no_call_ends_early_and_none_much_too_late)
{
    static const int limits[] = {0,    1,    7,    8,    9,     100,    1000,    2039,   2040,
                                 2047, 2048, 2049, 4096, 10000, 100000, 1000000, 9999999};
    enum { LIMITS = sizeof limits / sizeof *limits };
    calls *t = table(64, 64, 0, 0);
    for (int start = 0; start < 20; start++) {
        uint64_t begin;
        now_ms += 12345 + (uint64_t)start;
        begin = now_ms;
        for (int i = 0; i < LIMITS; i++) ask(t, i, limits[i]);
        int turns = 0;
        for (int next; (next = calls_next(t, now_ms)) >= 0; turns++) later(t, next);
        for (int i = 0; i < LIMITS; i++) {
            check_ended(i, NETIO_ETIMEDOUT, "");
            CHECK_BETWEEN(limits[i], limits[i] + CALLS_TICK_MS, callers[i].ended_ms - begin);
        }
        CHECK(turns < 12000); // the long ones are met once in each of the wheel's turns
    }
    over(t);
}

TEST(calls, a_clock_that_jumps_is_no_trouble)
{
    calls *t = table(8, 8, -1, 0);
    ask(t, 0, 100);
    ask(t, 1, 100000);
    later(t, 90000000); // a day of sleep
    check_ended(0, NETIO_ETIMEDOUT, "");
    check_ended(1, NETIO_ETIMEDOUT, "");
    now_ms -= 3600000; // backwards counts as none
    ask(t, 2, 100);
    calls_expire(t, now_ms);
    CHECK_EQ(0, callers[2].ends);
    CHECK(calls_next(t, now_ms) > 0);
    now_ms += 3600000 + CALLS_TICK_MS;
    calls_expire(t, now_ms);
    check_ended(2, NETIO_ETIMEDOUT, "");
    ask(t, 3, -1);
    CHECK_EQ(-1, calls_next(t, now_ms));
    later(t, 2000000000);
    CHECK_EQ(0, callers[3].ends);
    over(t);
}

//================================================================================================
// Many
//================================================================================================

// Against lists that are searched: each call ends once, as it should; no id is used twice.
enum { MOST = 16 };

static struct {
    bool waits;
    int ends, err; // so often, and how the last time
    uint64_t due_ms;
} model[MOST];                       // by caller
static uint64_t rests[2 * MOST + 1]; // by id: until when; 0: it does not

static int waiting_for(uint32_t id)
{
    for (int i = 0; i < MOST; i++) {
        if (model[i].waits && callers[i].id == id) return i;
    }
    return -1;
}

static void model_end(int who, int err)
{
    model[who].waits = false;
    if (err == NETIO_ETIMEDOUT || err == NETIO_ECANCELED) rests[callers[who].id] = now_ms + 300;
    if (err == NETIO_ECANCELED) return; // without a word
    model[who].ends++;
    model[who].err = err;
}

static void model_add(calls *t, int limit)
{
    uint64_t call = 0;
    uint32_t id = 0;
    int who = 0, used = 0;
    for (int i = 1; i <= 2 * MOST; i++) used += rests[i] > now_ms || waiting_for((uint32_t)i) >= 0;
    while (who < MOST && model[who].waits) who++;
    uint64_t refused = calls_get_stats(t).refused;
    int err = calls_add(t, &call, &id, now_ms, limit, ended, &callers[who % MOST]);
    if (who == MOST || used == 2 * MOST) {
        CHECK_ERR(NETIO_EBUSY, err);
        CHECK_EQ(refused + 1, calls_get_stats(t).refused);
        return;
    }
    CHECK_OK(err);
    CHECK(id >= 1 && id <= 2 * MOST && rests[id] <= now_ms && waiting_for(id) < 0);
    callers[who].call = call;
    callers[who].id = id;
    model[who].waits = true;
    model[who].due_ms = now_ms + (uint64_t)limit;
    rests[id] = 0;
}

TEST(calls, agrees_with_a_simple_list)
{
    calls *t = table(MOST, MOST, 300, 2 * MOST);
    uint32_t random = 7;
    memset(model, 0, sizeof model);
    memset(rests, 0, sizeof rests);
    now_ms = 1000000 / CALLS_TICK_MS * CALLS_TICK_MS; // at whole ticks its times are exact
    for (int step = 0; step < 100000; step++) {
        uint32_t what = test_random(&random) % 64, id = 1 + test_random(&random) % (2 * MOST);
        int who = waiting_for(id);
        if (what < 32) {
            model_add(t, (int)(1 + test_random(&random) % 40) * CALLS_TICK_MS);
        } else if (what < 44) {
            CHECK_ERR(who < 0 ? NETIO_ENOENT : 0, answer(t, id, ""));
            if (who >= 0) model_end(who, 0);
            rests[id] = 0;
        } else if (what < 50) {
            CHECK_ERR(who < 0 ? NETIO_ESTALE : 0,
                      calls_cancel(t, who < 0 ? UINT64_MAX : callers[who].call, now_ms));
            if (who >= 0) model_end(who, NETIO_ECANCELED);
        } else if (what < 63) {
            later(t, (int)(test_random(&random) % 5) * CALLS_TICK_MS);
            for (int i = 0; i < MOST; i++) {
                if (model[i].waits && model[i].due_ms <= now_ms) model_end(i, NETIO_ETIMEDOUT);
            }
        } else {
            calls_fail(t, NETIO_ECONNRESET);
            memset(rests, 0, sizeof rests);
            for (int i = 0; i < MOST; i++) {
                if (model[i].waits) model_end(i, NETIO_ECONNRESET);
            }
        }
        for (int i = 0; i < MOST; i++) {
            CHECK_EQ(model[i].ends, callers[i].ends);
            if (model[i].ends) CHECK_ERR(model[i].err, callers[i].err);
        }
    }
    calls_stats s = calls_get_stats(t);
    CHECK(s.answered > 1000 && s.timed_out > 1000 && s.cancelled > 1000 && s.failed > 1000);
    CHECK(s.refused > 100 && s.late > 100 && s.duplicate > 100);
    over(t);
}

static void count(void *user, int err, const void *answer_, size_t len)
{
    (void)answer_;
    (void)len;
    if (err == 0) ++*(uint64_t *)user;
}

TEST(calls, takes_constant_time_however_many_wait)
{
    size_t waits = test_under("qemu") || test_under("valgrind") || test_under("sanitizer")
                       ? 100000
                       : (size_t)CALLS_MOST / 2 - 1;
    calls *t = table(waits + 1, 1, 0, 0);
    uint64_t answered = 0, begin = test_ms();
    uint32_t id = 0;
    for (size_t i = 0; i < waits; i++)
        CHECK_OK(calls_add(t, NULL, &id, now_ms, 60000 + (int)(i % 10000), count, &answered));
    for (size_t i = 0; i < waits; i++) { // with a second as many as wait
        CHECK_OK(calls_add(t, NULL, &id, now_ms, 60000, count, &answered));
        CHECK_OK(calls_finish(t, id, 0, NULL, 0));
    }
    CHECK_EQ(waits, answered);
    CHECK(test_ms() - begin < 20000); // looking at each of those that wait would take hours
    over(t);
}

//================================================================================================
// The rest
//================================================================================================

TEST(calls, refuses_senseless_options)
{
    static const struct {
        calls_opts o;
        int err;
    } cases[] = {
        {{.max = CALLS_MOST + 1}, NETIO_EINVAL},
        {{.max = CALLS_MOST, .late_max = 1}, NETIO_EINVAL},
        {{.max = SIZE_MAX}, NETIO_EINVAL},
        {{.max = 1, .late_max = SIZE_MAX}, NETIO_EINVAL},
        {{.late_ms = -2}, NETIO_EINVAL},
        {{.max = 4, .late_max = 4, .id_max = 7}, NETIO_EINVAL},
        {{.max = 4, .late_max = 4, .id_max = 8}, 0},
        {{.max = 1, .late_max = 1}, 0},
    };
    uint32_t id;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        calls *t = NULL;
        CHECK_ERR(cases[i].err, calls_create(&t, &cases[i].o));
        CHECK((t != NULL) == (cases[i].err == 0));
        calls_destroy(t);
    }
    calls *t = table(0, 0, 0, 0);
    CHECK_ERR(NETIO_EINVAL, calls_add(t, NULL, &id, now_ms, 100, NULL, NULL));
    CHECK_ERR(NETIO_EINVAL, calls_add(t, NULL, NULL, now_ms, 100, ended, NULL));
    over(t);
}

TEST(calls, reads_ids_before_a_colon)
{
    static const struct {
        const char *line;
        int err;
        uint32_t id;
        const char *rest;
    } cases[] = {
        {"5:QUERY 1", 0, 5, "QUERY 1"},
        {"2:UPPER:make this", 0, 2, "UPPER:make this"},
        {"0:", 0, 0, ""},
        {"4294967295:x", 0, 4294967295u, "x"},
        {"4294967296:x", NETIO_EPROTO, 0, NULL},
        {"99999999999999999999999999:x", NETIO_EPROTO, 0, NULL},
        {"", NETIO_EPROTO, 0, NULL},
        {":x", NETIO_EPROTO, 0, NULL},
        {"7", NETIO_EPROTO, 0, NULL},
        {"07:x", NETIO_EPROTO, 0, NULL},
        {"00:x", NETIO_EPROTO, 0, NULL},
        {"-1:x", NETIO_EPROTO, 0, NULL},
        {"+1:x", NETIO_EPROTO, 0, NULL},
        {" 1:x", NETIO_EPROTO, 0, NULL},
        {"1 :x", NETIO_EPROTO, 0, NULL},
        {"x:1", NETIO_EPROTO, 0, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t id = 77;
        netio_buf rest = {NULL, 0};
        size_t len = strlen(cases[i].line);
        char *exact = (char *)malloc(len ? len : 1); // so that a byte too many is seen
        memcpy(exact, cases[i].line, len);
        int err = calls_read_id(exact, len, &id, &rest);
        CHECK_ERR(cases[i].err, err);
        if (err == 0) {
            CHECK_EQ(cases[i].id, id);
            CHECK_EQ(strlen(cases[i].rest), rest.len);
            CHECK_MEM(cases[i].rest, rest.data, rest.len);
        } else {
            CHECK_EQ(77, id);
        }
        free(exact);
    }
}

// clang-format off
TEST_MAIN("calls",
    T(calls, answers_in_any_order_reach_their_callers),
    T(calls, one_that_is_never_answered_times_out_alone),
    T(calls, answers_to_nothing_are_counted_and_ignored),
    T(calls, a_request_that_could_not_be_sent_fails_alone),
    T(calls, ids_wrap_around_past_those_in_use),
    T(calls, ids_wrap_around_at_the_largest),
    T(calls, an_id_rests_while_its_answer_may_be_late),
    T(calls, a_full_table_is_busy),
    T(calls, a_lost_connection_fails_all_that_wait),
    T(calls, a_cancelled_one_is_not_called),
    T(calls, a_number_of_an_ended_call_never_means_another),
    T(calls, the_rest_is_cancelled_when_it_is_destroyed),
    T(calls, whoever_is_called_may_call_the_table),
    T(calls, those_that_are_added_meanwhile_belong_to_the_next_connection),
    T(calls, no_call_ends_early_and_none_much_too_late),
    T(calls, a_clock_that_jumps_is_no_trouble),
    T(calls, agrees_with_a_simple_list),
    T(calls, takes_constant_time_however_many_wait),
    T(calls, refuses_senseless_options),
    T(calls, reads_ids_before_a_colon))
// clang-format on
