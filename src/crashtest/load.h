#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "crashtest/call_journal.h"
#include "platform/result.h"

namespace tensorforge::crashtest {

/// Clients of a real service that keep requests in flight through all its ends, and write down what they asked for and
/// were told, in memory and in a file.
///
/// Threads: belongs to one; it has one of its own for the clients.
class Load {
 public:
  struct Options {
    std::string server;      ///< HOST:PORT; nobody need be there yet
    std::string calls_path;  ///< a new file: a line when a call begins, and one when it is answered
    std::uint64_t seed{};
    std::size_t clients{3}, depth{8};
    bool begins_only_allowed{};  ///< requests that allow() lets it begin; else as many as are answered
  };
  /// kUnavailable: the file cannot be written.
  static Result<std::unique_ptr<Load>> start(const Options&);
  ~Load();

  /// Lets the clients begin so many more requests.
  void allow(std::uint64_t requests);
  std::uint64_t answered() const;
  /// The highest sequence that anybody was told.
  Sequence highest() const;
  /// Makes the file durable.
  absl::Status sync();
  /// Submits no more, waits until everything is answered, or is given up after its time, and ends.
  const CallJournal& finish();

 private:
  class Impl;
  explicit Load(std::unique_ptr<Impl>);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tensorforge::crashtest
