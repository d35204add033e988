#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include <asio.hpp>

#include "codec/frame_reader.h"
#include "codec/reply.h"
#include "codec/request.h"

namespace tensorforge::test {

/// A client without manners: sends any bytes, reads when it wants, blocks.
class RawPeer {
 public:
  explicit RawPeer(std::uint16_t port) {
    socket_.connect({asio::ip::address_v4::loopback(), port});
    socket_.set_option(asio::ip::tcp::no_delay(true));
  }

  /// False: the service has closed the connection.
  bool send(const std::string& bytes) {
    std::error_code error;
    asio::write(socket_, asio::buffer(bytes), error);
    return !error;
  }
  bool send(const ClientMessage& message) { return send(codec::encode_client_frame(message).value()); }

  /// Ends the connection at once, as a process that dies with answers unread does.
  void reset() {
    socket_.set_option(asio::socket_base::linger(true, 0));
    socket_.close();
  }

  /// The next message; nullopt: the connection was closed, or something that is no message came.
  std::optional<ServerMessage> receive() {
    for (;;) {
      const auto frame = reader_.next();
      if (!frame.ok()) return std::nullopt;
      if (frame->has_value()) {
        Result<ServerMessage> message = codec::decode_server_frame(**frame);
        return message.ok() ? std::optional(*std::move(message)) : std::nullopt;
      }
      std::error_code error;
      const std::size_t size = socket_.read_some(asio::buffer(received_), error);
      if (error) return std::nullopt;
      reader_.append(std::as_bytes(std::span(received_)).first(size));
    }
  }
  std::optional<Reply> reply() {
    std::optional<ServerMessage> message = receive();
    if (!message || !std::holds_alternative<Reply>(*message)) return std::nullopt;
    return std::get<Reply>(*std::move(message));
  }
  /// Says hello and waits for the welcome.
  std::optional<Welcome> greet(const std::optional<SessionId>& session = std::nullopt,
                               std::optional<Sequence> opened_at = std::nullopt) {
    Hello hello;
    hello.session = session;
    hello.opened_at = opened_at;
    hello.actor = "raw";
    send(ClientMessage(hello));
    std::optional<ServerMessage> message = receive();
    if (!message || !std::holds_alternative<Welcome>(*message)) return std::nullopt;
    return std::get<Welcome>(*std::move(message));
  }

 private:
  asio::io_context io_;
  asio::ip::tcp::socket socket_{io_};
  codec::FrameReader reader_;
  std::array<char, 65'536> received_{};
};

}  // namespace tensorforge::test
