import CShims
import Glibc
import SystemPackage

/// Memory of another process, whose layout may differ from what that process says.
extension Userfaultfd {
    /// The most bytes that one probe spans.
    private static let probeBytes = 1 << 30
    /// How often a mapping that is changing at this moment is probed again.
    private static let probeLimit = 1000

    /// Registers a range of another process for missing pages, and checks that it is fully mapped in pages of its size.
    ///
    /// A range that the process has registered itself is registered again, and keeps its other modes.
    ///
    /// Without the check, a hole in the range would show only when its page arrives. The check copies from memory that
    /// cannot be read: the kernel looks up the mapping first, then fails with EFAULT and places nothing.
    ///
    /// - Parameters:
    ///   - range: addresses in the other process, with the size that their pages must have.
    ///   - name: the range's name in errors: `region 3`.
    /// - Throws: ``HandedDescriptorError`` that says what is wrong, and where.
    package func claim(_ range: PageRange, name: String) throws(HandedDescriptorError) {
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
        // Bit 4 is UFFDIO_ZEROPAGE, which the kernel offers for all memory except huge pages.
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
        // Halves of parts that lie in several mappings, the next one last.
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
            // Both mean that the part is mapped: EEXIST comes from a huge page that is present.
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
                        "\(place): this host has no memory for its pages; free some, and map huge pages without MAP_NORESERVE"
                )
            case let errno:
                throw HandedDescriptorError(reason: "\(place) cannot take pages: \(errno)")
            }
        }
    }

    /// Makes the kernel look up the mapping of a range, by a copy that cannot succeed.
    private func probe(_ part: Range<UInt64>, from unreadable: borrowing Mapping) -> Errno {
        let source = UInt64(UInt(bitPattern: unreadable.base))
        for _ in 0..<Userfaultfd.probeLimit {
            var request = uffdio_copy()
            request.dst = part.lowerBound
            request.src = source
            request.len = part.upperBound - part.lowerBound
            do throws(Errno) {
                _ = try kernel(.uffdioCopy, isForeign: true) { shim_uffdio_copy(descriptor.raw, &request) }
                return .ioError  // Not reached: no kernel copies from memory that cannot be read.
            } catch .resourceTemporarilyUnavailable {
                JoinedThread.yield()
            } catch {
                return error
            }
        }
        return .resourceTemporarilyUnavailable
    }
}
