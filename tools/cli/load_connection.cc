#include "load_connection.h"

#include <system_error>
#include <utility>

#include <asio/buffer.hpp>
#include <asio/connect.hpp>
#include <asio/error.hpp>
#include <asio/write.hpp>
#include <fmt/format.h>

namespace tensorforge::cli {

void LoadConnection::connect(std::string service, const std::vector<asio::ip::tcp::endpoint>& endpoints,
                             const Hello& hello) {
  service_ = std::move(service);
  Result<std::string> frame = codec::encode_client_frame(hello);
  if (!frame.ok()) return lose("cannot be made: " + std::string(frame.status().message()));
  output_ = *std::move(frame);
  asio::async_connect(socket_, endpoints, [this](std::error_code error, const asio::ip::tcp::endpoint&) {
    if (over_) return;
    if (error) return lose("cannot be made: " + error.message());
    std::error_code ignored;
    socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
    write();
    read();
  });
}

void LoadConnection::read() {
  socket_.async_read_some(asio::buffer(received_), [this](std::error_code error, std::size_t size) {
    if (over_) return;
    if (error) return lose(error == asio::error::eof ? "was closed by the service" : "was lost: " + error.message());
    on_bytes(size);
    if (over_) return;
    write();
    read();
  });
}

void LoadConnection::on_bytes(std::size_t size) {
  const Time arrived = std::chrono::steady_clock::now();
  input_.append(std::as_bytes(std::span(received_)).first(size));
  while (!over_) {
    const auto frame = input_.next();
    if (!frame.ok()) return lose("brought a " + std::string(frame.status().message()));
    if (!frame->has_value()) return;
    user_.on_frame(**frame, arrived);
  }
}

void LoadConnection::write() {
  if (writing_ || output_.empty()) return;
  std::swap(output_, sending_);
  output_.clear();
  writing_ = true;
  asio::async_write(socket_, asio::buffer(sending_), [this](std::error_code error, std::size_t) {
    writing_ = false;
    if (over_) return;
    if (error) return lose("was lost: " + error.message());
    write();
  });
}

void LoadConnection::lose(const std::string& what) {
  close();
  user_.on_lost(absl::UnavailableError(fmt::format("the connection to {} {}", service_, what)));
}

void LoadConnection::close() {
  over_ = true;
  std::error_code ignored;
  socket_.close(ignored);
}

}  // namespace tensorforge::cli
