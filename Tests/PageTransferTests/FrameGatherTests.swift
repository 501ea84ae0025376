import LinuxSystem
import OwnThread
import PageProtocol
import Testing

@testable import PageServer

@Suite(.ownThread, .timeLimit(.minutes(1)))
struct FrameGatherTests {
    @Test func `one send carries the rest of a body and as many frames as fit`() throws {
        let (sender, receiver) = try StreamSocket.pair()
        var gather = FrameGather(copies: true)
        let page = try MemoryRegion(name: "page", pageCount: 1)
        // The rest of a body whose header has been sent.
        #expect(gather.copy(page.base, atMost: 4096) == 4096)
        var frames = 0
        while !gather.isFull {
            gather.add(.probeReply, body: page.base)
            frames += 1
        }
        #expect(frames == 64)
        let expected = 4096 + frames * (LaneFrame.encodedByteCount + Int(Wire.probeReplyBytes))
        let reading = try JoinedThread(name: "read") {
            let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: expected, alignment: 16)
            defer { bytes.deallocate() }
            _ = try? receiver.stream.receive(exactly: bytes)
        }
        #expect(try gather.flush(to: sender.stream) == 4096)
        reading.join()
    }
}
