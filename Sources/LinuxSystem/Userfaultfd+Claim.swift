import CShims
import Glibc
import SystemPackage

/// Memory of another process, which may not be what that process says.
extension Userfaultfd {
    /// Bytes that one probe spans at most.
    private static let probeBytes = 1 << 30
    /// How often a mapping that is just changing is probed again.
    private static let probeLimit = 1000

    /// Registers a range of another process for missing pages, and checks that all of the range is mapped, in pages of the
    /// range's size. A range that the process has registered itself is registered again, and keeps its other modes.
    ///
    /// A hole in the range would otherwise be seen only when its page comes. The check copies from memory that cannot be
    /// read: the kernel looks for the mapping first, and then fails with EFAULT and places nothing.
    ///
    /// - Parameter name: what the range is called in errors: `region 3`.
    /// - Throws: ``HandedDescriptorError`` with what is wrong, and where.
    public func claim(_ range: PageRange, name: String) throws(HandedDescriptorError) {
        let place = "\(name) (address \(range.address), \(range.byteCount) bytes)"
        var request = uffdio_register(
            range: uffdio_range(start: range.address, len: range.byteCount),
            mode: UInt64(1) << 0,  // UFFDIO_REGISTER_MODE_MISSING, a cast macro that is not imported
            ioctls: 0
        )
        do throws(Errno) {
            _ = try kernel(.uffdioRegister) { shim_uffdio_register(descriptor.raw, &request) }
        } catch .resourceBusy {
            throw HandedDescriptorError(reason: "\(place) is registered with another userfaultfd")
        } catch {
            throw HandedDescriptorError(
                reason:
                    "\(place) cannot be registered: \(error); map all of it as private anonymous, shared or huge memory"
            )
        }
        // UFFDIO_ZEROPAGE, which every memory has but that of huge pages.
        let isHuge = request.ioctls & 1 << 4 == 0
        guard isHuge == range.isHuge else {
            throw HandedDescriptorError(reason: "\(place) is not mapped in pages of \(range.pageSize) bytes")
        }
        let unreadable: Mapping
        do throws(SystemError) {
            unreadable = try Mapping(unreadableBytes: Userfaultfd.probeBytes)
        } catch {
            throw HandedDescriptorError(reason: "\(place) cannot be checked: \(error)")
        }
        let page = UInt64(range.pageSize)
        let end = range.address + range.byteCount
        // Halves of what lies in several mappings, the next one last.
        var rest: [Range<UInt64>] = []
        var next = range.address
        while next < end || !rest.isEmpty {
            let part: Range<UInt64>
            if let half = rest.popLast() {
                part = half
            } else {
                part = next..<min(end, next + UInt64(Userfaultfd.probeBytes))
                next = part.upperBound
            }
            switch probe(part, from: unreadable) {
            // Also of a huge page that is there.
            case .badAddress, .fileExists: continue
            case .noSuchFileOrDirectory where part.upperBound - part.lowerBound > page:
                let middle = part.lowerBound + (part.upperBound - part.lowerBound) / page / 2 * page
                rest.append(middle..<part.upperBound)
                rest.append(part.lowerBound..<middle)
            case .noSuchFileOrDirectory:
                throw HandedDescriptorError(reason: "\(place) is not mapped at address \(part.lowerBound)")
            case .noMemory, .noSpace:
                throw HandedDescriptorError(
                    reason:
                        "\(place) has no memory for its pages on this host; free some, and map huge pages without MAP_NORESERVE"
                )
            case let errno:
                throw HandedDescriptorError(reason: "\(place) cannot take pages: \(errno)")
            }
        }
    }

    /// Has the kernel look for the mapping of a range, by a copy that cannot succeed.
    private func probe(_ part: Range<UInt64>, from unreadable: borrowing Mapping) -> Errno {
        let source = UInt64(UInt(bitPattern: unreadable.base))
        for _ in 0..<Userfaultfd.probeLimit {
            var request = uffdio_copy()
            request.dst = part.lowerBound
            request.src = source
            request.len = part.upperBound - part.lowerBound
            do throws(Errno) {
                _ = try kernel(.uffdioCopy, isForeign: true) { shim_uffdio_copy(descriptor.raw, &request) }
                return .ioError  // No kernel copies from memory that cannot be read.
            } catch .resourceTemporarilyUnavailable {
                JoinedThread.yield()
            } catch {
                return error
            }
        }
        return .resourceTemporarilyUnavailable
    }
}
