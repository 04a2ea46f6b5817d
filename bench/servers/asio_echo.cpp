// asio_echo.cpp: standalone asio, callbacks, one thread, a buffer of 16 KiB for each connection
// (sink: 64 KiB).
#define ASIO_STANDALONE
#define ASIO_DISABLE_THREADS 1
#include <asio.hpp>
#include <memory>
#include <vector>
extern "C" {
#include "common.h"
}

struct session : std::enable_shared_from_this<session> {
    asio::ip::tcp::socket s;
    std::vector<char> buf;

    explicit session(asio::ip::tcp::socket x) : s(std::move(x)), buf(g_mode == SINK ? RBUF : 16384)
    {
    }

    void read()
    {
        auto self = shared_from_this();
        s.async_read_some(asio::buffer(buf),
                          [this, self](const asio::error_code &e, std::size_t n) {
                              if (e) return;
                              if (g_mode == ECHO_) {
                                  write(n);
                              } else {
                                  read();
                              }
                          });
    }

    void write(std::size_t n)
    {
        auto self = shared_from_this();
        asio::async_write(s, asio::buffer(buf.data(), n),
                          [this, self](const asio::error_code &e, std::size_t) {
                              if (!e) read();
                          });
    }

    void pour()
    {
        auto self = shared_from_this();
        s.async_write_some(asio::buffer(g_zeros, sizeof g_zeros),
                           [this, self](const asio::error_code &e, std::size_t) {
                               if (!e) pour();
                           });
    }
};

static void accept(asio::ip::tcp::acceptor &a)
{
    a.async_accept([&a](const asio::error_code &e, asio::ip::tcp::socket s) {
        if (!e) {
            auto p = std::make_shared<session>(std::move(s));
            if (g_mode == SOURCE) {
                p->pour();
            } else {
                p->read();
            }
        }
        accept(a);
    });
}

int main(int argc, char **argv)
{
    start(argc, argv);
    asio::io_context io(1);
    asio::ip::tcp::acceptor a(io, asio::ip::tcp::v4(), listen_tcp());
    accept(a);
    io.run();
}
