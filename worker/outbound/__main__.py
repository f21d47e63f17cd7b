from worker.outbound.main import run

if __name__ == "__main__":  # children import this module too
    run()
