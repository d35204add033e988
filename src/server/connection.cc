#include "server/connection.h"

#include <utility>

#include <asio/buffer.hpp>

namespace tensorforge::server {

void Connection::start(Events events) {
  events_ = std::move(events);
  std::error_code ignored;
  socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
  socket_.non_blocking(true, ignored);
  read();
}

void Connection::read() {
  // What a peer sends after its connection was closed is read and dropped: a socket that is closed with bytes unread
  // is reset, and the peer might lose the answer that tells it why.
  const bool wanted = (phase_ == Phase::Open && !paused_) || phase_ == Phase::Lingering;
  if (reading_ || !wanted) return;
  reading_ = true;
  socket_.async_read_some(asio::buffer(received_.get(), kReadBytes),
                          [self = shared_from_this()](std::error_code error, std::size_t size) {
                            self->reading_ = false;
                            if (error) return self->lose();
                            if (self->phase_ == Phase::Open) self->events_.bytes({self->received_.get(), size});
                            self->read();
                          });
}

void Connection::resume() {
  paused_ = false;
  read();
}

std::size_t Connection::send(std::string_view bytes) {
  if (phase_ != Phase::Open) return 0;
  if (!sending_.empty()) {
    gathered_ += bytes;
    return 0;
  }
  std::error_code error;  // the write of the rest tries again, and tells of what lasts
  const std::size_t size = socket_.non_blocking() ? socket_.write_some(asio::buffer(bytes), error) : 0;
  if (size == bytes.size()) return size;
  sending_ = bytes.substr(size);
  write();
  return size;
}

void Connection::write() {
  socket_.async_write_some(asio::buffer(sending_.data() + sent_, sending_.size() - sent_),
                           [self = shared_from_this()](std::error_code error, std::size_t size) {
                             if (error) return self->lose();
                             self->on_write(size);
                           });
}

void Connection::on_write(std::size_t size) {
  if (phase_ != Phase::Open) return;
  sent_ += size;
  events_.sent(size);
  if (sent_ == sending_.size()) {
    sending_.clear();
    sending_.swap(gathered_);
    sent_ = 0;
  }
  if (!sending_.empty()) write();
}

void Connection::close(std::uint64_t deadline_ms) {
  if (phase_ != Phase::Open) return;
  phase_ = Phase::Lingering;
  deadline_ms_ = deadline_ms;
  if (!sending_.empty() || !gathered_.empty()) return lose();
  std::error_code ignored;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  read();
}

void Connection::on_tick(std::uint64_t boot_ms) {
  if (phase_ == Phase::Lingering && boot_ms >= deadline_ms_) lose();
}

void Connection::lose() {
  if (phase_ == Phase::Closed) return;
  const bool was_open = phase_ == Phase::Open;
  const std::shared_ptr<Connection> self = shared_from_this();  // the owner lets go of it in the callback
  abort();
  const Events events = std::exchange(events_, {});
  was_open ? events.gone() : events.closed();
}

void Connection::abort() {
  phase_ = Phase::Closed;
  gathered_.clear();
  std::error_code ignored;
  socket_.close(ignored);
}

}  // namespace tensorforge::server
