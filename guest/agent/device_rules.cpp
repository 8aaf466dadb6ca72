#include "guest/agent/device_rules.h"

#include <linux/bpf.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <vector>

#include "base/fd.h"

namespace agent {
namespace {

using base::fail_errno;
using base::Result;
using base::UniqueFd;

constexpr int any_minor = -1;

struct Rule {
  int major, minor;
};

/// Character devices: null, zero, full, random, urandom; tty, console, ptmx; FUSE and TUN; the
/// terminals of devpts.
constexpr std::array<Rule, 11> allowed = {{{1, 3},
                                           {1, 5},
                                           {1, 7},
                                           {1, 8},
                                           {1, 9},
                                           {5, 0},
                                           {5, 1},
                                           {5, 2},
                                           {10, 200},
                                           {10, 229},
                                           {136, any_minor}}};

/// A program of the kernel's, whose registers are named by what they hold here.
class Program {
 public:
  enum Register : uint8_t { verdict, context, access, kind, major, minor };

  void load(Register to, size_t offset) {
    add(BPF_LDX | BPF_MEM | BPF_W, to, context, static_cast<int16_t>(offset), 0);
  }
  void copy(Register to, Register from) { add(BPF_ALU | BPF_MOV | BPF_X, to, from, 0, 0); }
  void shift_right(Register of, int bits) { add(BPF_ALU | BPF_RSH | BPF_K, of, {}, 0, bits); }
  void mask(Register of, int bits) { add(BPF_ALU | BPF_AND | BPF_K, of, {}, 0, bits); }
  void skip_unless_equal(Register of, int value, int16_t skipped) {
    add(BPF_JMP32 | BPF_JNE | BPF_K, of, {}, skipped, value);
  }
  void skip_if_equal(Register of, int value, int16_t skipped) {
    add(BPF_JMP32 | BPF_JEQ | BPF_K, of, {}, skipped, value);
  }
  void answer(int value) {
    add(BPF_ALU | BPF_MOV | BPF_K, verdict, {}, 0, value);
    add(BPF_JMP | BPF_EXIT, {}, {}, 0, 0);
  }
  const std::vector<bpf_insn>& code() const { return code_; }

 private:
  void add(int operation, Register to, Register from, int16_t offset, int immediate) {
    bpf_insn made{};
    made.code = static_cast<uint8_t>(operation);
    made.dst_reg = to & 0xf;
    made.src_reg = from & 0xf;
    made.off = offset;
    made.imm = immediate;
    code_.push_back(made);
  }

  std::vector<bpf_insn> code_;
};

/// An answer of 1 lets the access pass; one is two instructions long.
Program rules() {
  constexpr int16_t one_answer = 2;
  constexpr int bits_of_kind = 16;
  Program made;
  made.load(Program::kind, offsetof(bpf_cgroup_dev_ctx, access_type));
  made.load(Program::major, offsetof(bpf_cgroup_dev_ctx, major));
  made.load(Program::minor, offsetof(bpf_cgroup_dev_ctx, minor));
  made.copy(Program::access, Program::kind);
  made.shift_right(Program::access, bits_of_kind);
  made.mask(Program::kind, (1 << bits_of_kind) - 1);
  made.skip_unless_equal(Program::access, BPF_DEVCG_ACC_MKNOD, one_answer);
  made.answer(1);
  made.skip_if_equal(Program::kind, BPF_DEVCG_DEV_CHAR, one_answer);
  made.answer(0);
  for (const Rule& rule : allowed) {
    const bool every_minor = rule.minor == any_minor;
    made.skip_unless_equal(Program::major, rule.major, one_answer + (every_minor ? 0 : 1));
    if (!every_minor) made.skip_unless_equal(Program::minor, rule.minor, one_answer);
    made.answer(1);
  }
  made.answer(0);
  return made;
}

int bpf(bpf_cmd command, bpf_attr& attributes) {
  return static_cast<int>(::syscall(SYS_bpf, command, &attributes, sizeof attributes));
}

uint64_t address(const void* of) { return reinterpret_cast<uintptr_t>(of); }

}  // namespace

Result<> keep_to_usual_devices(int cgroup_fd) {
  const Program program = rules();
  bpf_attr load{};
  load.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
  load.insns = address(program.code().data());
  load.insn_cnt = static_cast<uint32_t>(program.code().size());
  load.license = address("Apache-2.0");
  const UniqueFd loaded(bpf(BPF_PROG_LOAD, load));
  if (!loaded) return fail_errno(errno, "load the rules for devices");
  bpf_attr attach{};
  attach.target_fd = static_cast<uint32_t>(cgroup_fd);
  attach.attach_bpf_fd = static_cast<uint32_t>(loaded.get());
  attach.attach_type = BPF_CGROUP_DEVICE;
  if (bpf(BPF_PROG_ATTACH, attach) != 0) return fail_errno(errno, "set the rules for devices");
  return {};
}

}  // namespace agent
