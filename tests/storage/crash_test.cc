#include <cerrno>
#include <csignal>
#include <cstdint>
#include <string>
#include <vector>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "storage/data_directory.h"
#include "tests/storage/log_fixture.h"

namespace tensorforge::storage {
namespace {

/// This program, writing to a log in a process of its own until it is killed.
class Writer {
 public:
  explicit Writer(const std::string& data_dir) {
    int ends[2];
    EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
    std::string name = "writer";
    std::string verb = "--write-until-killed";
    std::string directory = data_dir;
    char* const argv[] = {name.data(), verb.data(), directory.data(), nullptr};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    EXPECT_EQ(posix_spawn(&child_, "/proc/self/exe", &actions, nullptr, argv, environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    acknowledgements_ = ends[0];
  }
  ~Writer() {
    kill_now();
    close(acknowledgements_);
  }
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  /// The next sequence that it was told is durable; 0: it is dead and there is none.
  Sequence next_acknowledged() {
    Sequence sequence = 0;
    char* const to = reinterpret_cast<char*>(&sequence);
    for (std::size_t got = 0; got < sizeof sequence;) {
      const ssize_t bytes = read(acknowledgements_, to + got, sizeof sequence - got);
      if (bytes < 0 && errno == EINTR) continue;
      if (bytes <= 0) return 0;
      got += static_cast<std::size_t>(bytes);
    }
    return sequence;
  }
  void kill_now() {
    if (child_ == 0) return;
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
    child_ = 0;
  }

 private:
  pid_t child_{};
  int acknowledgements_{-1};
};

TEST(Crash, LosesNothingThatWasAcknowledged) {
  const TemporaryDirectory directory;
  const OpenOptions options{directory.path().string(), Ack::kAnchor, false, nullptr};
  std::uint32_t incarnation = 0;
  for (int round = 1; round <= 8; ++round) {
    SCOPED_TRACE(testing::Message() << "round " << round);
    Sequence acknowledged = 0;
    {
      Writer writer(directory.path());
      for (int i = 0; i < 13 * round; ++i) {
        const Sequence sequence = writer.next_acknowledged();
        ASSERT_GT(sequence, acknowledged) << "the writer ended";
        acknowledged = sequence;
      }
      writer.kill_now();
      while (const Sequence sequence = writer.next_acknowledged()) acknowledged = sequence;
    }
    Served served(options);
    ASSERT_TRUE(served.opening().ok()) << served.opening();
    const std::vector<std::string> records = all_records(served.journal());
    ASSERT_GE(records.size(), acknowledged);
    for (Sequence i = 1; i <= records.size(); ++i) ASSERT_EQ(records[i - 1], record_text(i, 200));
    EXPECT_TRUE(served.journal().verify().ok()) << served.journal().verify().status();
    if (round > 1) {
      EXPECT_EQ(served.end().incarnation, incarnation);
    }
    incarnation = served.end().incarnation;
  }
}

TEST(Crash, LeavesTheDirectoryToOneProcessAtATime) {
  const TemporaryDirectory directory;
  const OpenOptions options{directory.path().string(), Ack::kAnchor, false, nullptr};
  Writer writer(directory.path());
  ASSERT_GT(writer.next_acknowledged(), 0U);
  const absl::Status status = open_data_directory(options).status();
  EXPECT_EQ(exit_code(status), 4) << status;
  EXPECT_GT(writer.next_acknowledged(), 0U) << "the other process goes on";
}

}  // namespace
}  // namespace tensorforge::storage
