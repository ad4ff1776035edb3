#include "rank_exchange.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <string_view>

namespace titer {
namespace {

constexpr int64_t kMessageBytes = 1024;  // of an error that all ranks hear of, the rest is cut off

at::TensorOptions on_cpu(at::ScalarType dtype) { return at::TensorOptions(at::kCPU).dtype(dtype); }

std::vector<at::Tensor> gather(const Shard& shard, const at::Tensor& own) {
  std::vector<at::Tensor> parts = shard.all_gather(own);
  TORCH_CHECK_VALUE(static_cast<int64_t>(parts.size()) == shard.world,
                    "[shard] all_gather must return one tensor per rank, ", shard.world, ", got ", parts.size());
  for (at::Tensor& part : parts) {
    TORCH_CHECK_VALUE(part.sizes() == own.sizes() && part.scalar_type() == own.scalar_type(),
                      "[shard] all_gather must return tensors like the one it gets, ", own.scalar_type(), " ",
                      own.sizes(), ", got ", part.scalar_type(), " ", part.sizes());
    part = part.to(at::kCPU).contiguous();
  }
  return parts;
}

/// Every rank throws: what it failed with itself, or what the first rank that failed says.
[[noreturn]] void fail_together(const Shard& shard, const std::exception_ptr& own, int64_t first_failed) {
  const at::Tensor message = at::zeros({kMessageBytes}, on_cpu(at::kByte));
  if (own) {
    const std::string text = message_of(own);
    size_t size = std::min<size_t>(text.size(), kMessageBytes - 1);
    while (size < text.size() && size > 0 && (text[size] & 0xC0) == 0x80) --size;  // no character is cut in two
    std::memcpy(message.mutable_data_ptr(), text.data(), size);
  }
  const std::vector<at::Tensor> messages = gather(shard, message);
  if (own) std::rethrow_exception(own);
  TORCH_CHECK(false, "[shard] rank ", first_failed,
              " failed: ", static_cast<const char*>(messages[static_cast<size_t>(first_failed)].const_data_ptr()));
}

}  // namespace

void check_shard(const Shard& shard) {
  TORCH_CHECK_VALUE(shard.world >= 1, "[shard] world must be at least 1, got ", shard.world);
  TORCH_CHECK_VALUE(shard.rank >= 0 && shard.rank < shard.world, "[shard] rank must be from 0 to ", shard.world - 1,
                    ", got ", shard.rank);
  TORCH_CHECK_VALUE(shard.world == 1 || (shard.all_gather && shard.broadcast), "[shard] ", shard.world,
                    " ranks need all_gather and broadcast; give both");
}

void on_rank_0(const Shard& shard, const std::function<void()>& work) {
  from_rank_0(shard, [&] {
    work();
    return std::string();
  });
}

std::string from_rank_0(const Shard& shard, const std::function<std::string()>& make) {
  if (shard.world == 1) return make();
  const c10::InferenceMode off(false);  // who carries the tensors away may run outside of the caller's
  std::string content;
  std::exception_ptr failure;
  if (shard.rank == 0) {
    try {
      content = make();
    } catch (...) {
      failure = std::current_exception();
      content = message_of(failure);
    }
  }
  at::Tensor header =
      at::tensor({int64_t{failure != nullptr}, static_cast<int64_t>(content.size())}, on_cpu(at::kLong));
  shard.broadcast(header);
  const auto* numbers = header.const_data_ptr<int64_t>();
  content.resize(static_cast<size_t>(numbers[1]));
  if (!content.empty()) {
    at::Tensor bytes = at::from_blob(content.data(), {numbers[1]}, on_cpu(at::kByte));
    shard.broadcast(bytes);
  }
  if (failure) std::rethrow_exception(failure);
  TORCH_CHECK(numbers[0] == 0, "[shard] rank 0 failed: ", content);
  return content;
}

at::Tensor ids_from_rank_0(const Shard& shard, int64_t columns, const std::function<at::Tensor()>& make) {
  if (shard.world == 1) return make();
  const std::string bytes = from_rank_0(shard, [&] {
    const at::Tensor ids = make();
    return std::string(static_cast<const char*>(ids.const_data_ptr()), ids.nbytes());
  });
  const auto count = static_cast<int64_t>(bytes.size() / sizeof(int64_t));
  const at::Tensor ids = at::empty({count / columns, columns}, on_cpu(at::kLong));
  std::memcpy(ids.mutable_data_ptr(), bytes.data(), bytes.size());
  return ids;
}

std::vector<at::Tensor> from_all_ranks(const Shard& shard, int64_t size, const std::function<void(double*)>& fill) {
  const c10::InferenceMode off(false);
  const at::Tensor own = at::zeros({size + 1}, on_cpu(at::kDouble));
  auto* numbers = own.mutable_data_ptr<double>();
  if (shard.world == 1) {
    fill(numbers);
    return {own.narrow(0, 0, size)};
  }
  std::exception_ptr failure;
  try {
    fill(numbers);
  } catch (...) {
    failure = std::current_exception();
    numbers[size] = 1;
  }
  std::vector<at::Tensor> parts = gather(shard, own);
  const auto failed = [size](const at::Tensor& part) { return part.const_data_ptr<double>()[size] != 0; };
  const auto first = std::find_if(parts.begin(), parts.end(), failed);
  if (first != parts.end()) fail_together(shard, failure, first - parts.begin());
  for (at::Tensor& part : parts) part = part.narrow(0, 0, size);
  return parts;
}

void on_all_ranks(const Shard& shard, const std::function<void()>& work) {
  from_all_ranks(shard, 0, [&](double*) { work(); });
}

std::string message_of(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  } catch (const std::exception& error) {
    const std::string_view text = error.what();  // of a Python exception the first line, without its traceback
    return std::string(text.substr(0, text.find('\n')));
  } catch (...) {
    return "an exception of an unknown type";
  }
}

}  // namespace titer
