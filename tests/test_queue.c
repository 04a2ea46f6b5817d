// The byte queue: bounded, in order, and as fast when it is full as when it is empty.
#include "test.h"

// Take `len` bytes and compare them with the sequence that starts at `*next`.
static void take(netio_queue *q, size_t len, uint8_t *next)
{
    while (len > 0) {
        netio_buf front = netio_queue_front(q);
        const uint8_t *p = (const uint8_t *)front.data;
        size_t n = front.len < len ? front.len : len;
        CHECK(n > 0);
        for (size_t i = 0; i < n; i++) CHECK_EQ((*next)++, p[i]);
        netio_queue_drop(q, n);
        len -= n;
    }
}

static void put(netio_queue *q, size_t len, uint8_t *next)
{
    uint8_t bytes[512];
    CHECK(len <= sizeof bytes);
    for (size_t i = 0; i < len; i++) bytes[i] = (*next)++;
    CHECK_OK(netio_queue_put(q, bytes, len));
}

TEST(queue, what_is_put_comes_out_in_order)
{
    netio_queue *q;
    uint8_t in = 0, out = 0;
    uint32_t random = 1;
    size_t len = 0;
    CHECK_OK(netio_queue_create(&q, 1000));
    for (int i = 0; i < 20000; i++) {
        size_t n = test_random(&random) % 300;
        if (test_random(&random) % 2 && n <= 1000 - len) {
            put(q, n, &in);
            len += n;
        } else {
            if (n > len) n = len;
            take(q, n, &out);
            len -= n;
        }
        CHECK_EQ(len, netio_queue_len(q));
    }
    take(q, len, &out);
    CHECK_EQ(0, netio_queue_front(q).len);
    netio_queue_destroy(q);
    netio_queue_destroy(NULL);
}

TEST(queue, over_its_max_it_refuses_all_and_changes_nothing)
{
    netio_queue *q;
    netio_buf front;
    CHECK_OK(netio_queue_create(&q, 8));
    CHECK_OK(netio_queue_put(q, "abcde", 5));
    CHECK_ERR(NETIO_ENOBUFS, netio_queue_put(q, "fghi", 4));
    CHECK_EQ(5, netio_queue_len(q));
    CHECK_OK(netio_queue_put(q, "fgh", 3));
    CHECK_ERR(NETIO_ENOBUFS, netio_queue_put(q, "i", 1));
    CHECK_ERR(NETIO_ENOBUFS, netio_queue_put(q, "i", SIZE_MAX));
    CHECK_OK(netio_queue_put(q, NULL, 0));
    front = netio_queue_front(q);
    CHECK_EQ(8, front.len);
    CHECK_MEM("abcdefgh", front.data, 8);
    netio_queue_drop(q, 100); // more than there is: all
    CHECK_EQ(0, netio_queue_len(q));
    CHECK_OK(netio_queue_put(q, "again", 5));
    CHECK_MEM("again", netio_queue_front(q).data, 5);
    netio_queue_destroy(q);
}

TEST(queue, allocation_that_fails_changes_nothing)
{
    netio_queue *q = NULL;
    uint8_t in = 0, out = 0;
    test_alloc_fail_at(1);
    CHECK_ERR(NETIO_ENOMEM, netio_queue_create(&q, 1000));
    CHECK(q == NULL);
    CHECK_OK(netio_queue_create(&q, 1000));
    put(q, 200, &in);
    test_alloc_fail_at(1);
    CHECK_ERR(NETIO_ENOMEM, netio_queue_put(q, "x", 100));
    CHECK_EQ(200, netio_queue_len(q));
    put(q, 300, &in);
    take(q, 500, &out);
    netio_queue_destroy(q);
}

// A million messages of 20 bytes in bursts, and again with the queue nearly full all the time:
// copying the rest at each drop, or at each put, would take minutes.
TEST(queue, small_messages_cost_the_same_however_many_wait)
{
    enum { MAX = 1 << 20, BURST = 3276 };
    static char bytes[20];
    for (int full = 0; full < 2; full++) {
        netio_queue *q;
        uint64_t begin = test_cpu_ms();
        CHECK_OK(netio_queue_create(&q, MAX));
        for (size_t i = 0; full && i < (MAX - 65536) / 20; i++)
            CHECK_OK(netio_queue_put(q, bytes, 20));
        for (int i = 0; i < 1000000 / BURST; i++) {
            for (int k = 0; k < BURST; k++) CHECK_OK(netio_queue_put(q, bytes, 20));
            for (int k = 0; k < BURST; k++) netio_queue_drop(q, 20);
        }
        for (int i = 0; full && i < 1000000; i++) {
            CHECK_OK(netio_queue_put(q, bytes, 20));
            netio_queue_drop(q, 20);
        }
        CHECK_BETWEEN(0, 5000, test_cpu_ms() - begin);
        netio_queue_destroy(q);
    }
}

TEST_MAIN("queue", T(queue, what_is_put_comes_out_in_order),
          T(queue, over_its_max_it_refuses_all_and_changes_nothing),
          T(queue, allocation_that_fails_changes_nothing),
          T(queue, small_messages_cost_the_same_however_many_wait))
